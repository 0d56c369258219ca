"""Documents beside an output: the image's config, and the list of what was written."""

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from .errors import FlattenError, quoted
from .options import Options
from .outputs import atomic
from .outputs.job import Job
from .views.describe import plan_rows


def write_sidecars(job: Job, options: Options) -> None:
    """Write the documents that the options ask for; each appears whole or not at all.

    Raises:
        FlattenError: One cannot be written.
    """
    if options.config_out is not None:
        text = json.dumps(job.image.config, indent=2) + "\n"
        _write(options.config_out, [text])
    if options.list_out is not None:
        rows = plan_rows(job.plan, job.layers(), len(job.image.layers))
        _write(options.list_out, (json.dumps(row) + "\n" for row in rows))


def _write(out: str | os.PathLike[str] | int, lines: Iterable[str]) -> None:
    """Write lines to a path, where they appear at the end, or to a descriptor."""
    file = nullcontext(out) if isinstance(out, int) else atomic.create(Path(out))
    with file as descriptor:
        try:
            with os.fdopen(os.dup(descriptor), "w", encoding="ascii") as writer:
                writer.writelines(lines)
        except BrokenPipeError:
            raise
        except OSError as error:
            name = "standard output" if out == 1 else quoted(str(out))
            raise FlattenError(f"{name}: cannot write: {error.strerror}") from error
