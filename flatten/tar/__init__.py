"""The layer format: headers, members, whiteouts, xattr records. No I/O."""
