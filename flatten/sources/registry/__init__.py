"""Images in registries: names, access, and blobs read while they are downloaded."""
