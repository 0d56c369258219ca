// npm's tar: the archive argv[2] into the directory argv[3], as root would.
import { mkdirSync } from 'node:fs';
import { x } from 'tar';

const [, , file, cwd] = process.argv;
mkdirSync(cwd);
process.umask(0);
await x({ file, cwd, preserveOwner: true, preservePaths: true });
