#!/bin/bash
# urllib3 reports a refused connection and an unknown host as a timeout.
#
# Expected:  ConnectTimeoutError is for what its documentation says: "a socket
#            timeout occurs while connecting". A refused connection is not one.
# Happens:   `except ConnectTimeoutError` also catches a refused connection and an
#            unknown host, although no timeout is set and none has passed.
# Cause:     NewConnectionError, and NameResolutionError below it, inherit from
#            ConnectTimeoutError, so that Retry counts them as connection errors.
# Matters:   a program that pulls from registries tells a user who mistyped a host
#            name to raise the timeout, or waits and tries again. requests
#            tests for NewConnectionError first; type(error) is exact.
# Sources:   urllib3 documentation, urllib3.exceptions.ConnectTimeoutError;
#            github.com/urllib3/urllib3/pull/2319, where a reviewer asks why;
#            github.com/psf/requests/issues/2811.
# Versions:  PyPI urllib3 2.8.0.
. "$(dirname "$0")/common.bash"
pypi urllib3==2.8.0
unset http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY all_proxy ALL_PROXY

cat >connect.py <<'PY'
import socket, sys

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError

with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))  # and does not listen
    address = {"refused": "127.0.0.1:%d" % unused.getsockname()[1],
               "unknown": "registry.invalid"}[sys.argv[1]]
    try:
        urllib3.PoolManager(retries=False, timeout=None).request("GET", f"http://{address}/")
    except ConnectTimeoutError as error:
        print("timeout,", type(error).__name__)
    except HTTPError as error:
        print("no timeout,", type(error).__name__)
PY
expect "documentation" "Raised when a socket timeout occurs while connecting to a server" \
    "$(python -c 'import urllib3.exceptions as e; print(e.ConnectTimeoutError.__doc__)')"
expect "a refused connection" "timeout, NewConnectionError" "$(python connect.py refused)"
expect "an unknown host" "timeout, NameResolutionError" "$(python connect.py unknown)"
