/* Read and write plain tar headers, many at a time; flatten/_headers.pyi has the API.
 *
 * A header is plain if its name is a path but for "./" before it and "/" after it, if
 * its numbers are octal, and if nothing else describes its member but a path in a PAX
 * header (read) or a GNU long name (written). All others, and all errors, are left to
 * Python. Nothing is allocated or kept between calls. Fields: see flatten/tar/wire.py.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* Python 3.11 */
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 512, OWNER_SIZE = 24 };
enum { REGULAR = '0', LINK = '1', SYMLINK = '2', DIRECTORY = '5', PAX = 'x' };
enum { MAX_PREFIX = 130 }; /* star has two times after as many bytes */

typedef struct { const uint8_t *at; int64_t size; } Text;

static int64_t padded(int64_t size)
{
    return (size + BLOCK - 1) & -(int64_t)BLOCK;
}

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

/* Sum the bytes of a header, with spaces as its checksum. */
static int64_t checksum(const uint8_t *block)
{
    uint32_t sum = 8 * ' ';
    for (int i = 0; i < BLOCK; i++)
        sum += block[i];
    for (int i = 148; i < 156; i++)
        sum -= block[i];
    return sum;
}

/* Return whether a header has the right checksum in the usual form, "%06o\0 ". */
static int has_checksum(const uint8_t *block)
{
    int64_t stored;
    return !block[154] && block[155] == ' ' && parse_octal(block + 148, 7, &stored)
           && stored == checksum(block);
}

/* Return whether a name is a normalised path; of those with dots, only some are. */
static int is_path(Text name)
{
    const uint8_t *part = name.at, *end = name.at + name.size, *slash;
    do {
        slash = memchr(part, '/', (size_t)(end - part));
        int64_t size = (slash ? slash : end) - part;
        int whiteout = size > 3 && !memcmp(part, ".wh.", 4);
        if (!size || whiteout || (part[0] == '.' && (size == 1 || part[1] == '.')))
            return 0;
        part = slash ? slash + 1 : end;
    } while (slash);
    return 1;
}

/* Find the path in a PAX header of two blocks: its only record is "%d path=%s\n". */
static int parse_pax(const uint8_t *block, Text *path)
{
    const uint8_t *at = block + BLOCK, *stop;
    int64_t size, length = 0;
    if (!parse_octal(block + 124, 12, &size) || size > BLOCK)
        return 0;
    stop = at + size;
    while (at < stop && at - block < BLOCK + 3 && *at >= '0' && *at <= '9')
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

/* Append a path and a NUL; return the number of bytes, or 0 if it is none. */
static int64_t put_path(uint8_t *out, int64_t room, Text prefix, Text name)
{
    Text *first = prefix.size ? &prefix : &name;
    if (first->size > 2 && !memcmp(first->at, "./", 2))
        *first = (Text){first->at + 2, first->size - 2};
    int64_t size = prefix.size + (prefix.size > 0) + name.size;
    if (!size || size >= room)
        return 0;
    memcpy(out, prefix.at, (size_t)prefix.size);
    out[prefix.size] = '/';
    memcpy(out + size - name.size, name.at, (size_t)name.size);
    size -= out[size - 1] == '/';
    out[size] = 0;
    return is_path((Text){out, size}) ? size + 1 : 0;
}

/* Read the next header into a row; return 0 if it is not plain, or not in the buffer. */
static int scan_member(const uint8_t *buffer, int64_t length, int64_t base,
                       const Columns *into, State *state)
{
    int64_t offset = state->offset;
    if (offset < base || offset - base > length - BLOCK || state->rows >= into->rows)
        return 0;
    const uint8_t *block = buffer + (offset - base), *end = buffer + length;
    Text none = {block, 0}, prefix = none, name = none;
    int64_t mode, uid, gid, size, mtime, names, targets = 0;
    if (!has_checksum(block))
        return 0;
    if (block[156] == PAX) {
        if (end - block < 3 * BLOCK || !parse_pax(block, &name)
            || !has_checksum(block + 2 * BLOCK))
            return 0;
        block += 2 * BLOCK;
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
    names = put_path(into->names + state->names, into->names_size - state->names,
                     name.size ? none : prefix, name.size ? name : text_field(block, 100));
    if (!names)
        return 0;
    if (kind == LINK || kind == SYMLINK) {
        uint8_t *out = into->targets + state->targets;
        int64_t room = into->targets_size - state->targets;
        Text target = text_field(block + 157, 100);
        targets = kind == LINK ? put_path(out, room, none, target) : target.size + 1;
        if (!targets || targets > room)
            return 0;
        if (kind == SYMLINK)
            memcpy(memset(out, 0, (size_t)targets), target.at, (size_t)target.size);
    }
    mode = kind == SYMLINK ? 0777 : mode & 07777;
    size = kind == REGULAR ? size : 0; /* others have no data, whatever they say */
    into->kinds[state->rows] = kind;
    into->owners[state->rows] = mode << 42 | uid << 21 | gid;
    into->sizes[state->rows] = size;
    into->data[state->rows] = base + (block - buffer) + BLOCK;
    into->mtimes[state->rows] = mtime;
    state->reached = into->data[state->rows++] + size;
    state->offset = padded(state->reached);
    state->names += names;
    state->targets += targets;
    return 1;
}

static void release(Py_buffer *buffers, int count)
{
    while (count--)
        PyBuffer_Release(&buffers[count]);
}

static PyObject *scan(PyObject *Py_UNUSED(module), PyObject *args)
{
    enum { BUFFER, STATE, KINDS, NUMBERS, NAMES, TARGETS, BUFFERS };
    Py_buffer in[BUFFERS];
    long long base;
    if (!PyArg_ParseTuple(args, "y*Lw*w*w*w*w*:scan", &in[BUFFER], &base, &in[STATE],
                          &in[KINDS], &in[NUMBERS], &in[NAMES], &in[TARGETS]))
        return NULL;
    int64_t rows = in[KINDS].len, *column = in[NUMBERS].buf;
    Columns into = {
        .kinds = in[KINDS].buf, .names = in[NAMES].buf, .targets = in[TARGETS].buf,
        .owners = column, .sizes = column + rows, .data = column + 2 * rows,
        .mtimes = column + 3 * rows, .rows = rows, .names_size = in[NAMES].len,
        .targets_size = in[TARGETS].len,
    };
    State *state = in[STATE].buf;
    int possible = in[STATE].len == sizeof *state && base >= 0 && base < INT64_MAX / 2
                   && in[NUMBERS].len / 32 >= rows && state->rows >= 0
                   && state->names >= 0 && state->names <= into.names_size
                   && state->targets >= 0 && state->targets <= into.targets_size;
    if (possible) {
        Py_BEGIN_ALLOW_THREADS
        while (scan_member(in[BUFFER].buf, in[BUFFER].len, base, &into, state))
            ;
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "the state of the scan is impossible");
    }
    release(in, BUFFERS);
    return possible ? Py_NewRef(Py_None) : NULL;
}

/* The columns of a plan: the first two by position, the others by inode or owner. */
enum { INODES, SPECIAL, KINDS, LAYERS, OWNERS, SIZES, DATA, MTIMES, OWNER_FIELDS, ALL };
#define CELL(plan, type, column, row) (((const type *)(plan)->columns[column].buf)[row])

typedef struct {
    PyObject *paths, *targets; /* by position; by inode */
    Py_buffer columns[ALL];
    Py_ssize_t positions, rows;
} Plan;

typedef struct {
    Text path, target;
    const uint8_t *owner; /* the mode, uid and gid fields */
    int64_t head, size, data, mtime;
    int layer;
    uint8_t kind;
} Member;

static int get_plan(PyObject *tuple, Plan *plan)
{
    Py_buffer *in = plan->columns;
    if (!PyArg_ParseTuple(tuple, "O!O!y*y*y*y*y*y*y*y*y*", &PyList_Type, &plan->paths,
                          &PyDict_Type, &plan->targets, &in[INODES], &in[SPECIAL],
                          &in[KINDS], &in[LAYERS], &in[OWNERS], &in[SIZES], &in[DATA],
                          &in[MTIMES], &in[OWNER_FIELDS]))
        return 0;
    static const int widths[] = {4, 1, 1, 2, 4, 8, 8, 8};
    plan->positions = PyList_Size(plan->paths);
    plan->rows = PY_SSIZE_T_MAX;
    for (int i = INODES; i <= MTIMES; i++) {
        Py_ssize_t length = in[i].len / widths[i];
        Py_ssize_t *least = i < KINDS ? &plan->positions : &plan->rows;
        if (length < *least)
            *least = length;
    }
    return 1;
}

static int get_text(PyObject *object, Text *text)
{
    char *at;
    Py_ssize_t size;
    if (!object || PyBytes_AsStringAndSize(object, &at, &size) < 0)
        return 0;
    *text = (Text){(const uint8_t *)at, size};
    return 1;
}

/* Read a member; return 0 if it is not plain, with an exception if it is impossible. */
static int get_member(const Plan *plan, Py_ssize_t position, Member *member)
{
    if (position < 0 || position >= plan->positions)
        return 0;
    uint32_t inode = CELL(plan, uint32_t, INODES, position);
    if (CELL(plan, uint8_t, SPECIAL, position) || inode >= plan->rows)
        return 0;
    size_t owner = CELL(plan, uint32_t, OWNERS, inode);
    *member = (Member){
        .kind = CELL(plan, uint8_t, KINDS, inode),
        .layer = CELL(plan, uint16_t, LAYERS, inode),
        .size = CELL(plan, int64_t, SIZES, inode),
        .data = CELL(plan, int64_t, DATA, inode),
        .mtime = CELL(plan, int64_t, MTIMES, inode),
        .head = BLOCK,
    };
    if (owner >= (size_t)plan->columns[OWNER_FIELDS].len / OWNER_SIZE
        || (uint64_t)member->size >> 33 || (uint64_t)member->mtime >> 33 /* 11 digits */
        || !get_text(PyList_GetItem(plan->paths, position), &member->path))
        return 0;
    member->owner = &CELL(plan, uint8_t, OWNER_FIELDS, OWNER_SIZE * owner);
    if (member->path.size > 100)
        member->head += BLOCK + padded(member->path.size + 1);
    if (member->kind == SYMLINK) {
        PyObject *number = PyLong_FromUnsignedLong(inode);
        if (number)
            get_text(PyDict_GetItemWithError(plan->targets, number), &member->target);
        Py_XDECREF(number);
        if (!member->target.at || member->target.size > 100)
            return 0;
    }
    return member->head <= member->data && member->data < INT64_MAX / 2;
}

static void put_octal(uint8_t *field, int digits, int64_t value)
{
    for (; digits--; value >>= 3)
        field[digits] = (uint8_t)('0' + (value & 7));
}

/* Write one block, as write_header.header does. */
static void put_block(uint8_t *block, const Member *member)
{
    int64_t name = member->path.size < 100 ? member->path.size : 100;
    memset(block, 0, BLOCK);
    memcpy(block, member->path.at, (size_t)name);
    memcpy(block + 100, member->owner, OWNER_SIZE);
    put_octal(block + 124, 11, member->size);
    put_octal(block + 136, 11, member->mtime);
    block[156] = member->kind;
    if (member->target.size)
        memcpy(block + 157, member->target.at, (size_t)member->target.size);
    memcpy(block + 257, "ustar  ", 8);
    put_octal(block + 148, 6, checksum(block));
    block[155] = ' ';
}

/* Write all blocks of a member's header: first its name, if that is long. */
static void put_header(uint8_t *out, const Member *member)
{
    int64_t size = member->path.size, room = member->head - 2 * BLOCK;
    if (room > 0) {
        Member name = {
            .path = {(const uint8_t *)"././@LongLink", 13}, .kind = 'L',
            .owner = (const uint8_t *)"0000000\0" "0000000\0" "0000000", .size = size + 1,
        };
        put_block(out, &name);
        memcpy(out + BLOCK, member->path.at, (size_t)size);
        memset(out + BLOCK + size, 0, (size_t)(room - size));
    }
    put_block(out + member->head - BLOCK, member);
}

static PyObject *encode(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *tuple, *object;
    Py_ssize_t position, stop;
    long long below, most, begin = 0, end = 0;
    int layer = -1;
    Py_buffer out = {.buf = NULL};
    Plan plan;
    if (!PyArg_ParseTuple(args, "O!nnLLO:encode", &PyTuple_Type, &tuple, &position, &stop,
                          &below, &most, &object)
        || !get_plan(tuple, &plan))
        return NULL;
    if (object != Py_None && PyObject_GetBuffer(object, &out, PyBUF_WRITABLE) < 0)
        stop = position;
    if (out.buf && out.len < most)
        most = out.len;
    for (; position < stop; position++) {
        Member member;
        if (!get_member(&plan, position, &member))
            break;
        int64_t at = member.data - member.head;
        if (layer < 0) {
            begin = end = at;
            layer = member.layer;
        }
        if (member.size >= below || member.layer != layer || at != padded(end)
            || member.size > most - (member.data - begin))
            break;
        if (out.buf) {
            uint8_t *content_end = (uint8_t *)out.buf + (end - begin);
            memset(content_end, 0, (size_t)(at - end));
            put_header(content_end + (at - end), &member);
        }
        end = member.data + member.size;
    }
    release(plan.columns, ALL);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_BuildValue("nL", position, end - begin);
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS, "See _headers.pyi."},
    {"encode", encode, METH_VARARGS, "See _headers.pyi."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "flatten._headers",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__headers(void)
{
    return PyModuleDef_Init(&module);
}
