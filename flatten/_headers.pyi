from typing_extensions import Buffer

def scan(
    buffer: Buffer,
    base: int,
    state: Buffer,
    kinds: Buffer,
    numbers: Buffer,
    names: Buffer,
    targets: Buffer,
    /,
) -> None: ...
