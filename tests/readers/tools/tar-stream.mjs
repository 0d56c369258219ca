// npm's tar-stream: print each member of the archive argv[2] to the file argv[3], as a
// line of JSON with bytes in base64.
import { createReadStream, writeFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import tar from 'tar-stream';

const TYPES = {
  file: '0', 'contiguous-file': '7', link: '1', symlink: '2', directory: '5',
  'character-device': '3', 'block-device': '4', fifo: '6',
};
const PREFIX = 'SCHILY.xattr.';
const base64 = (text) => Buffer.from(text ?? '').toString('base64');
const lines = [];
const extract = tar.extract();
extract.on('entry', (header, stream, next) => {
  const parts = [];
  stream.on('data', (part) => parts.push(part));
  stream.on('end', () => {
    const xattrs = {};
    for (const [key, value] of Object.entries(header.pax ?? {})) {
      if (key.startsWith(PREFIX)) xattrs[key.slice(PREFIX.length)] = base64(value);
    }
    lines.push(JSON.stringify({
      name: base64(header.name), type: TYPES[header.type] ?? String(header.type),
      linkname: base64(header.linkname), data: Buffer.concat(parts).toString('base64'),
      mode: header.mode, uid: header.uid, gid: header.gid,
      mtime: Math.floor(header.mtime.getTime() / 1000),
      devmajor: header.devmajor, devminor: header.devminor, xattrs,
    }));
    next();
  });
});
await pipeline(createReadStream(process.argv[2]), extract);
writeFileSync(process.argv[3], lines.map((line) => line + '\n').join(''));
