"""Build the kernel for headers, if there is a compiler. See also pyproject.toml."""

from sysconfig import get_config_var

from setuptools import Extension, setup

if get_config_var("Py_GIL_DISABLED"):  # that Python has no stable ABI
    setup()
else:
    kernel = Extension(
        "flatten._headers",
        ["flatten/_headers.c"],
        extra_compile_args=["-std=c11", "-g0"],  # debug information has paths in it
        optional=True,
        py_limited_api=True,
    )
    setup(
        ext_modules=[kernel],
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
