"""Documents beside an output: the image's config, and the list of what was written."""

import json
import os
from collections.abc import Iterable
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
        _write(Path(options.config_out), [text])
    if options.list_out is not None:
        rows = plan_rows(job.plan, job.layers(), len(job.image.layers))
        _write(Path(options.list_out), (json.dumps(row) + "\n" for row in rows))


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic.create(path) as descriptor:
        try:
            with os.fdopen(os.dup(descriptor), "w", encoding="ascii") as file:
                file.writelines(lines)
        except OSError as error:
            raise FlattenError(f"{quoted(str(path))}: {error.strerror}") from error
