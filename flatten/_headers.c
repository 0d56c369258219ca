/* Read plain tar headers, many at a time, for flatten/tar/kernel.py.
 *
 * A header is plain if its name is a path but for "./" before it and "/" after it, if
 * its numbers are octal, and if nothing else describes its member but a path in a PAX
 * header. Every other header, and every error, is left to the caller. Nothing here
 * allocates memory or keeps anything between calls.
 *
 * The table of the fields is in flatten/tar/wire.py.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* Python 3.11 */
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 512 };
enum { REGULAR = '0', LINK = '1', SYMLINK = '2', DIRECTORY = '5', PAX = 'x' };
enum { MAX_PREFIX = 130 }; /* star has two times after as many bytes */
enum { MAX_PATH = 512 };   /* longer ones are charged, see Allowance */

typedef struct {
    const uint8_t *at;
    int64_t size;
} Text;

/* Return the text of a field, up to its first NUL. */
static Text text_field(const uint8_t *field, int64_t width)
{
    const uint8_t *end = memchr(field, 0, (size_t)width);
    return (Text){field, end ? end - field : width};
}

/* Read octal digits that a space or NUL in the field ends. */
static int parse_octal(const uint8_t *field, int width, int64_t *value)
{
    int digits = 0;
    *value = 0;
    while (digits < width && field[digits] >= '0' && field[digits] <= '7')
        *value = *value << 3 | (field[digits++] - '0');
    return digits && digits < width && (!field[digits] || field[digits] == ' ');
}

/* Compare a checksum in its usual form, "%06o\0 ", with the sum of the bytes. */
static int has_checksum(const uint8_t *block)
{
    const uint8_t *field = block + 148;
    int64_t stored, sum = 8 * ' ';
    uint32_t bytes = 0;
    for (int i = 0; i < BLOCK; i++)
        bytes += block[i];
    sum += bytes;
    for (int i = 0; i < 8; i++)
        sum -= field[i];
    return !field[6] && field[7] == ' ' && parse_octal(field, 7, &stored)
           && stored == sum;
}

/* Return whether a name is a normalised path; of those with dots, only some are. */
static int is_path(Text name)
{
    const uint8_t *part = name.at, *end = name.at + name.size;
    for (;;) {
        const uint8_t *slash = memchr(part, '/', (size_t)(end - part));
        int64_t size = (slash ? slash : end) - part;
        if (!size)
            return 0;
        if (part[0] == '.') { /* ".", "..", or a whiteout? */
            if (size == 1 || part[1] == '.' || (size > 3 && !memcmp(part, ".wh.", 4)))
                return 0;
        }
        if (!slash)
            return 1;
        part = slash + 1;
    }
}

/* Find the path in a PAX header whose only record is "%d path=%s\n". */
static int parse_pax(const uint8_t *block, const uint8_t *end, Text *path)
{
    const uint8_t *at = block + BLOCK, *stop;
    int64_t size, length = 0;
    if (!parse_octal(block + 124, 12, &size) || size > MAX_PATH || size > end - at)
        return 0;
    stop = at + size;
    while (at < stop && *at >= '0' && *at <= '9' && length <= size)
        length = length * 10 + (*at++ - '0');
    if (length != size || stop - at < 8 || memcmp(at, " path=", 6) || stop[-1] != '\n')
        return 0;
    *path = (Text){at + 6, stop - at - 7};
    return !memchr(path->at, 0, (size_t)path->size)
           && !memchr(path->at, '\n', (size_t)path->size);
}

/* The columns of the rows found, in the caller's memory. */
typedef struct {
    uint8_t *kinds, *names, *targets;
    int64_t *owners, *sizes, *data, *mtimes;
    int64_t rows, names_size, targets_size; /* capacities; the last two in bytes */
} Columns;

/* How far a scan is, in the caller's memory. */
typedef struct {
    int64_t rows, names, targets; /* used of the capacities */
    int64_t offset;               /* of the next header in the stream */
    int64_t reached;              /* end of the last data in the stream */
} State;

/* Append a text with a NUL; return the number of bytes, or 0 without room. */
static int64_t put(uint8_t *out, int64_t room, Text text)
{
    if (text.size >= room)
        return 0;
    memcpy(out, text.at, (size_t)text.size);
    out[text.size] = 0;
    return text.size + 1;
}

/* Append the path of a member's name; return the number of bytes, or 0. */
static int64_t put_path(uint8_t *out, int64_t room, Text prefix, Text name)
{
    int64_t size = 0;
    Text *first = prefix.size ? &prefix : &name;
    if (first->size > 2 && !memcmp(first->at, "./", 2)) {
        first->at += 2;
        first->size -= 2;
    }
    if (prefix.size) {
        size = put(out, room, prefix);
        if (!size)
            return 0;
        out[size - 1] = '/';
    }
    int64_t more = put(out + size, room - size, name);
    size += more - 1; /* without the NUL */
    if (!more || !size)
        return 0;
    if (out[size - 1] == '/')
        out[--size] = 0;
    return is_path((Text){out, size}) ? size + 1 : 0;
}

/* Read one member's header, and the PAX header before it, into a row.
 *
 * Returns whether it is plain; otherwise the state is as before.
 */
static int scan_member(const uint8_t *block, const uint8_t *end, int64_t offset,
                       const Columns *into, State *state)
{
    Text prefix = {block, 0}, long_name = {block, 0};
    int64_t mode, uid, gid, size, mtime, names, targets = 0;
    if (!has_checksum(block))
        return 0;
    if (block[156] == PAX) {
        int64_t skipped;
        if (!parse_pax(block, end, &long_name))
            return 0;
        skipped = 2 * BLOCK; /* a body of at most one block */
        if (end - block < skipped + BLOCK || !has_checksum(block + skipped))
            return 0;
        block += skipped;
        offset += skipped;
    }
    uint8_t kind = block[156];
    if (kind != REGULAR && kind != LINK && kind != SYMLINK && kind != DIRECTORY)
        return 0;
    if (block[345]) {
        prefix = text_field(block + 345, 155);
        if (prefix.size > MAX_PREFIX || memcmp(block + 257, "ustar", 6))
            return 0;
    }
    if (!parse_octal(block + 100, 8, &mode) || !parse_octal(block + 108, 8, &uid)
        || !parse_octal(block + 116, 8, &gid) || !parse_octal(block + 124, 12, &size)
        || !parse_octal(block + 136, 12, &mtime) || (kind == SYMLINK && size))
        return 0;
    if (long_name.size)
        names = put_path(into->names + state->names, into->names_size - state->names,
                         (Text){block, 0}, long_name);
    else
        names = put_path(into->names + state->names, into->names_size - state->names,
                         prefix, text_field(block, 100));
    if (!names)
        return 0;
    if (kind == LINK || kind == SYMLINK) {
        uint8_t *out = into->targets + state->targets;
        int64_t room = into->targets_size - state->targets;
        Text target = text_field(block + 157, 100);
        targets = kind == LINK ? put_path(out, room, (Text){block, 0}, target)
                               : put(out, room, target);
        if (!targets)
            return 0;
    }
    if (kind != REGULAR)
        size = 0; /* no data follows, whatever the header says */
    if (kind == SYMLINK)
        mode = 0777;
    into->kinds[state->rows] = kind;
    into->owners[state->rows] = (mode & 07777) << 42 | uid << 21 | gid;
    into->sizes[state->rows] = size;
    into->data[state->rows] = offset + BLOCK;
    into->mtimes[state->rows] = mtime;
    state->rows++;
    state->names += names;
    state->targets += targets;
    state->reached = offset + BLOCK + size;
    state->offset = (state->reached + BLOCK - 1) & -(int64_t)BLOCK;
    return 1;
}

static void scan_members(const uint8_t *start, const uint8_t *end, int64_t base,
                         const Columns *into, State *state)
{
    while (state->rows < into->rows) {
        int64_t at = state->offset - base;
        if (at < 0 || at > end - start - BLOCK
            || !scan_member(start + at, end, state->offset, into, state))
            return;
    }
}

PyDoc_STRVAR(scan_doc,
"scan(buffer, base, state, kinds, numbers, names, targets)\n--\n\n"
"Append a row for each plain header, up to the first that is not plain.\n\n"
"Args:\n"
"    buffer: Bytes of the stream.\n"
"    base: Their offset in the stream.\n"
"    state: Five int64: rows, bytes of names and bytes of targets appended so far,\n"
"        the offset of the next header, and the end of the last data.\n"
"    kinds: A byte per row: the typeflag.\n"
"    numbers: Four columns of int64, one after another: the owner (mode << 42 |\n"
"        uid << 21 | gid), the size, the offset of the data, the mtime.\n"
"    names: The paths, each with a NUL behind it.\n"
"    targets: The targets of the links, each with a NUL behind it.");

static PyObject *scan(PyObject *module, PyObject *args)
{
    Py_buffer buffer, view, kinds, numbers, names, targets;
    long long base;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*Lw*w*w*w*w*:scan", &buffer, &base, &view, &kinds,
                          &numbers, &names, &targets))
        return NULL;
    int64_t rows = numbers.len / (4 * (Py_ssize_t)sizeof(int64_t));
    int64_t *column = numbers.buf;
    Columns into = {
        .kinds = kinds.buf, .names = names.buf, .targets = targets.buf,
        .owners = column, .sizes = column + rows, .data = column + 2 * rows,
        .mtimes = column + 3 * rows, .rows = rows < kinds.len ? rows : kinds.len,
        .names_size = names.len, .targets_size = targets.len,
    };
    State *state = view.buf;
    if (view.len != sizeof *state || base < 0 || base >= INT64_MAX >> 1
        || state->rows < 0 || state->names < 0 || state->names > names.len
        || state->targets < 0 || state->targets > targets.len || state->offset < 0) {
        PyErr_SetString(PyExc_ValueError, "the state of the scan is impossible");
    } else {
        Py_BEGIN_ALLOW_THREADS
        scan_members(buffer.buf, (const uint8_t *)buffer.buf + buffer.len, base, &into,
                     state);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&view);
    PyBuffer_Release(&kinds);
    PyBuffer_Release(&numbers);
    PyBuffer_Release(&names);
    PyBuffer_Release(&targets);
    return result;
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS, scan_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "flatten._headers",
    .m_doc = "Read plain tar headers; see flatten.tar.kernel.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__headers(void)
{
    return PyModuleDef_Init(&module);
}
