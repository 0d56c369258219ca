// npm's modern-tar: the archive argv[2] into the directory argv[3].
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { unpackTar } from 'modern-tar/fs';

process.umask(0);
await pipeline(createReadStream(process.argv[2]), unpackTar(process.argv[3]));
