/* The tokenizer's quick way in C: JSON text to token ids and back, along a grammar that native.py hands over.

   Only what goes well is done here. Whatever is wrong with a document or with ids, and whatever is rare (a lone
   surrogate, an integer of more than 309 digits), ends in None: the caller then goes the way in Python, which says
   what is wrong and where, or handles the rare case. Where a result comes out, it is the one of grammar.py and
   segment.py, whose terms are used here: a base token is a code, a mask has a bit for each alternative of a node.

   Documents and ids come from strangers. Every read is bounded, the depth of recursion too, and memory grows with the
   input only. Functions that give up return 0 or NULL; an exception is set only where memory has run out. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* one build serves Python 3.11 and later */
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { END = 257, OBJECT, OBJECT_END, ARRAY, ARRAY_END, NUMBER, NULL_VALUE, TRUE_VALUE, FALSE_VALUE, FIRST_LITERAL };
enum {
    MAX_DEPTH = 128,
    MAX_IDS = 1 << 16,
    MAX_CODES = 0xD800,
    MAX_KNOWN = 1024,        /* keys that one node knows: a bit for each in a frame of the recursion */
    MAX_FREE = 1024,         /* free keys of one object, each of which is compared with all before it */
    MAX_NUMBER = 400,        /* characters */
    MAX_INTEGER_DIGITS = 309,
    SPARE = 8, /* codes behind the last that may be copied with it */
};

/* ---- the grammar and the vocabulary ---- */

typedef struct {
    const uint8_t *classes;   /* of each byte */
    const uint16_t *following; /* state after state * class_count + class; 0: none, else its number + 1 */
    const uint8_t *accepting;
    uint32_t class_count, state_count;
} Automaton;

typedef struct {
    uint64_t mask;
    const Automaton *automaton;
} Form;

typedef struct {
    const uint16_t *codes; /* its bytes */
    const char *quoted;    /* as JSON, in quotes */
    size_t length, quoted_length;
    uint32_t hash;
} Literal;

typedef struct {
    uint32_t literal_plus_1; /* 0: a free slot */
    uint32_t index;
} NameSlot;

typedef struct { /* a hash table: literals to their places in a list */
    NameSlot *slots;
    uint32_t slot_mask;
} Names;

typedef struct {
    uint64_t mask, minimum, maximum, item_mask;
} ArrayShape;

typedef struct {
    uint64_t mask, minimum, maximum;
    uint64_t *required; /* bits of known keys */
} ObjectShape;

typedef struct Node Node;

typedef struct {
    const Node *child;
    const uint64_t *masks; /* for each shape: the alternatives of the child that it allows; none: not its key */
} Key;

typedef struct {
    uint64_t matched; /* the patterns that a name matches */
    Key key;
} FreeKey;

struct Node {
    int opens, has_texts;
    uint64_t null_mask, true_mask, false_mask, any_text;
    Form *forms, *numbers;
    Names members; /* of enumerations */
    uint64_t *member_masks;
    ArrayShape *arrays;
    const Node *item;
    ObjectShape *shapes;
    Names known;
    Key *keys;
    Form *patterns; /* of free keys; mask: the pattern's own bit */
    FreeKey *free_keys;
    uint32_t form_count, number_count, array_count, shape_count, pattern_count, free_count, known_words;
};

typedef struct {
    uint32_t from, to; /* states of the trie; from 0: a free slot */
    uint16_t code, token; /* the token that ends here; 0: none */
} Edge;

typedef union Block { /* memory of a codec, all freed together */
    union Block *next;
    uint64_t alignment;
} Block;

typedef struct {
    PyObject_HEAD
    Block *blocks;
    Node *nodes;
    Literal *literals;
    uint32_t node_count, automaton_count, literal_count, base_size, id_count;
    uint16_t *expansions;   /* the codes of all ids, one after the other */
    uint32_t *expansion_at; /* where each id's begin; one more for the end */
    PyObject **numbers;     /* each id as a Python object, made once */
    uint32_t *first_state;  /* of the trie, after one code; 0: no longer token begins with it */
    Edge *edges;            /* a hash table */
    uint32_t edge_count, state_count, edge_shift; /* the table has 2 ** (32 - edge_shift) slots */
} Codec;

static void *allocate(Codec *codec, size_t count, size_t size) {
    if (count > (PY_SSIZE_T_MAX - sizeof(Block)) / size) {
        PyErr_NoMemory();
        return NULL;
    }
    Block *block = PyMem_Calloc(1, sizeof(Block) + count * size);
    if (block == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    block->next = codec->blocks;
    codec->blocks = block;
    return block + 1;
}

static uint32_t hash_of(const uint16_t *codes, size_t length) { /* FNV-1a */
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ codes[i]) * 16777619u;
    }
    return hash;
}

static const NameSlot *find_name(const Codec *codec, const Names *names, const uint16_t *codes, size_t length) {
    if (names->slots == NULL) {
        return NULL;
    }
    uint32_t hash = hash_of(codes, length);
    for (uint32_t i = hash;; i++) { /* at least half of the slots are free */
        const NameSlot *slot = &names->slots[i & names->slot_mask];
        if (slot->literal_plus_1 == 0) {
            return NULL;
        }
        const Literal *literal = &codec->literals[slot->literal_plus_1 - 1];
        if (literal->hash == hash && literal->length == length &&
            memcmp(literal->codes, codes, length * sizeof *codes) == 0) {
            return slot;
        }
    }
}

static const NameSlot *find_literal(const Codec *codec, const Names *names, uint32_t literal) {
    if (names->slots == NULL) {
        return NULL;
    }
    for (uint32_t i = codec->literals[literal].hash;; i++) {
        const NameSlot *slot = &names->slots[i & names->slot_mask];
        if (slot->literal_plus_1 == 0 || slot->literal_plus_1 == literal + 1) {
            return slot->literal_plus_1 ? slot : NULL;
        }
    }
}

static int accepts(const Automaton *automaton, const uint16_t *codes, size_t length) { /* codes are bytes */
    if (automaton->state_count == 0) {
        return 0;
    }
    uint32_t state = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t next = automaton->following[state * automaton->class_count + automaton->classes[codes[i]]];
        if (next == 0) {
            return 0;
        }
        state = next - 1;
    }
    return automaton->accepting[state];
}

static uint64_t accepted_by(const Form *forms, uint32_t count, const uint16_t *codes, size_t length) {
    uint64_t accepted = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (accepts(forms[i].automaton, codes, length)) {
            accepted |= forms[i].mask;
        }
    }
    return accepted;
}

static uint64_t arrays_of_length(const Node *node, uint64_t alive, uint64_t length) {
    uint64_t fitting = 0;
    for (uint32_t i = 0; i < node->array_count; i++) {
        const ArrayShape *array = &node->arrays[i];
        if (length >= array->minimum && length <= array->maximum) {
            fitting |= alive & array->mask;
        }
    }
    return fitting;
}

static uint64_t narrow_items(const Node *node, uint64_t alive, uint64_t accepted) {
    for (uint32_t i = 0; i < node->array_count; i++) {
        if ((node->arrays[i].item_mask & accepted) == 0) {
            alive &= ~node->arrays[i].mask;
        }
    }
    return alive;
}

/* ---- the keys of an object, while it is written or read ---- */

typedef struct { /* a free key: where its bytes stand among the codes */
    size_t start, length;
    uint32_t hash;
} Seen;

typedef struct { /* the free keys of all objects that are open */
    Seen *items;
    size_t count, room;
} SeenStack;

typedef struct {
    const Node *node;
    uint64_t alive; /* the shapes that keys and values leave possible */
    uint64_t count;
    size_t first_seen;
    uint64_t present[MAX_KNOWN / 64];
} Keys;

static void begin_keys(Keys *keys, const Node *node, const SeenStack *seen) {
    keys->node = node;
    keys->alive = ~(uint64_t)0;
    keys->count = 0;
    keys->first_seen = seen->count;
    memset(keys->present, 0, node->known_words * sizeof *keys->present);
}

static const Key *add_known(Keys *keys, uint32_t index) { /* NULL: it stands twice */
    uint64_t bit = (uint64_t)1 << (index % 64);
    if (keys->present[index / 64] & bit) {
        return NULL;
    }
    keys->present[index / 64] |= bit;
    keys->count++;
    return &keys->node->keys[index];
}

static const Key *add_free(Keys *keys, SeenStack *seen, const uint16_t *codes, size_t start, size_t length) {
    const Node *node = keys->node;
    uint64_t matched = accepted_by(node->patterns, node->pattern_count, codes + start, length);
    const Key *key = NULL;
    for (uint32_t i = 0; i < node->free_count && key == NULL; i++) {
        if (node->free_keys[i].matched == matched) {
            key = &node->free_keys[i].key;
        }
    }
    if (key == NULL || seen->count - keys->first_seen >= MAX_FREE) {
        return NULL;
    }
    uint32_t hash = hash_of(codes + start, length);
    for (size_t i = keys->first_seen; i < seen->count; i++) {
        const Seen *other = &seen->items[i];
        if (other->hash == hash && other->length == length &&
            memcmp(codes + other->start, codes + start, length * sizeof *codes) == 0) {
            return NULL;
        }
    }
    if (seen->count == seen->room) {
        size_t room = seen->room ? 2 * seen->room : 64; /* no more than MAX_DEPTH * MAX_FREE are ever there */
        Seen *items = PyMem_Realloc(seen->items, room * sizeof *items);
        if (items == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        seen->items = items;
        seen->room = room;
    }
    seen->items[seen->count++] = (Seen){start, length, hash};
    keys->count++;
    return key;
}

static int narrow(Keys *keys, const Key *key, uint64_t accepted) {
    for (uint32_t i = 0; i < keys->node->shape_count; i++) {
        if ((key->masks[i] & accepted) == 0) {
            keys->alive &= ~keys->node->shapes[i].mask;
        }
    }
    return keys->alive != 0;
}

static uint64_t shapes_at_end(const Keys *keys, SeenStack *seen) {
    const Node *node = keys->node;
    uint64_t alive = 0;
    seen->count = keys->first_seen;
    for (uint32_t i = 0; i < node->shape_count; i++) {
        const ObjectShape *shape = &node->shapes[i];
        int complete = keys->count >= shape->minimum && keys->count <= shape->maximum;
        for (uint32_t word = 0; word < node->known_words; word++) {
            complete &= (shape->required[word] & ~keys->present[word]) == 0;
        }
        if (complete) {
            alive |= shape->mask & keys->alive;
        }
    }
    return alive;
}

/* ---- numbers ---- */

/* A JSON number as Python writes the int or float that it stands for. Returns its length, 0 to give up. */
static size_t number_as_python_writes_it(char *text, size_t length) {
    if (strspn(text, "-0123456789") == length) {
        if (length == 2 && memcmp(text, "-0", 2) == 0) {
            text[0] = '0';
            return 1;
        }
        return length - (text[0] == '-') <= MAX_INTEGER_DIGITS ? length : 0;
    }
    char *end;
    double value = PyOS_string_to_double(text, &end, NULL);
    char *written = NULL;
    if (end == text + length && value - value == 0) { /* finite */
        written = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    }
    if (written == NULL) {
        PyErr_Clear();
        return 0;
    }
    length = strlen(written);
    if (length < MAX_NUMBER) {
        memcpy(text, written, length + 1);
    }
    PyMem_Free(written);
    return length < MAX_NUMBER ? length : 0;
}

/* ---- JSON text to base tokens ---- */

typedef struct {
    const Codec *codec;
    const uint8_t *text; /* UTF-8 with a NUL at its end, which no rule of JSON takes: scanning stops there */
    size_t at, length;
    uint16_t *codes;
    size_t used, room;
    SeenStack seen;
} Writer;

static const uint8_t ends_plain_text[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    ['"'] = 1, ['\\'] = 1,
};

static int make_room(Writer *writer, size_t more) {
    if (writer->room - writer->used >= more) {
        return 1;
    }
    size_t room = writer->room;
    while (room - writer->used < more) {
        if (room > PY_SSIZE_T_MAX / (4 * sizeof *writer->codes)) {
            PyErr_NoMemory();
            return 0;
        }
        room = 2 * room + 64;
    }
    uint16_t *codes = PyMem_Realloc(writer->codes, room * sizeof *codes);
    if (codes == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    writer->codes = codes;
    writer->room = room;
    return 1;
}

static int emit(Writer *writer, uint16_t code) {
    if (!make_room(writer, 1)) {
        return 0;
    }
    writer->codes[writer->used++] = code;
    return 1;
}

static uint8_t skip_space(Writer *writer) { /* returns the byte after it */
    const uint8_t *text = writer->text;
    size_t at = writer->at;
    while (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
        at++;
    }
    writer->at = at;
    return text[at];
}

static int take_word(Writer *writer, const char *word, size_t length) {
    if (strncmp((const char *)writer->text + writer->at, word, length) != 0) {
        return 0;
    }
    writer->at += length;
    return 1;
}

static int32_t four_hex_digits(const uint8_t *in) { /* -1: they are not */
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = in[i];
        if (digit >= '0' && digit <= '9') {
            digit -= '0';
        } else if ((digit | 32) >= 'a' && (digit | 32) <= 'f') {
            digit = (digit | 32) - 'a' + 10;
        } else {
            return -1;
        }
        value = 16 * value + digit;
    }
    return value;
}

/* Takes an escape, `in` being behind its backslash. Writes no more codes than it takes bytes. */
static const uint8_t *write_escape(const uint8_t *in, uint16_t **out) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (*in != 'u') {
        const char *letter = *in ? strchr(letters, *in) : NULL;
        if (letter == NULL) {
            return NULL;
        }
        *(*out)++ = (uint16_t)meanings[letter - letters];
        return in + 1;
    }
    int32_t value = four_hex_digits(in + 1);
    in += 5;
    if (value < 0 || (value >= 0xDC00 && value <= 0xDFFF)) {
        return NULL;
    }
    if (value >= 0xD800 && value <= 0xDBFF) { /* the first half of a pair */
        if (in[0] != '\\' || in[1] != 'u') {
            return NULL;
        }
        int32_t low = four_hex_digits(in + 2);
        if (low < 0xDC00 || low > 0xDFFF) {
            return NULL;
        }
        in += 6;
        value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
    }
    uint16_t *to = *out;
    if (value < 0x80) {
        *to++ = (uint16_t)value;
    } else if (value < 0x800) {
        *to++ = (uint16_t)(0xC0 | value >> 6);
        *to++ = (uint16_t)(0x80 | (value & 63));
    } else if (value < 0x10000) {
        *to++ = (uint16_t)(0xE0 | value >> 12);
        *to++ = (uint16_t)(0x80 | (value >> 6 & 63));
        *to++ = (uint16_t)(0x80 | (value & 63));
    } else {
        *to++ = (uint16_t)(0xF0 | value >> 18);
        *to++ = (uint16_t)(0x80 | (value >> 12 & 63));
        *to++ = (uint16_t)(0x80 | (value >> 6 & 63));
        *to++ = (uint16_t)(0x80 | (value & 63));
    }
    *out = to;
    return in;
}

static int write_string(Writer *writer) { /* its bytes, without END; writer->at is behind the opening quote */
    if (!make_room(writer, writer->length - writer->at + 1)) { /* it cannot be longer than the rest of the text */
        return 0;
    }
    const uint8_t *in = writer->text + writer->at;
    uint16_t *out = writer->codes + writer->used;
    for (;;) {
        while (!ends_plain_text[*in]) {
            *out++ = *in++;
        }
        if (*in != '\\') {
            break;
        }
        in = write_escape(in + 1, &out);
        if (in == NULL) {
            return 0;
        }
    }
    if (*in != '"') { /* a control character, or the end of the text */
        return 0;
    }
    writer->at = (size_t)(in + 1 - writer->text);
    writer->used = (size_t)(out - writer->codes);
    return 1;
}

static uint64_t write_text(Writer *writer, const Node *node) {
    size_t start = writer->used;
    writer->at++;
    if (!write_string(writer)) {
        return 0;
    }
    const uint16_t *codes = writer->codes + start;
    size_t length = writer->used - start;
    if (node->has_texts) {
        uint64_t accepted = node->any_text | accepted_by(node->forms, node->form_count, codes, length);
        return emit(writer, END) ? accepted : 0;
    }
    const NameSlot *slot = find_name(writer->codec, &node->members, codes, length);
    if (slot == NULL) {
        return 0;
    }
    writer->used = start;
    uint16_t literal = (uint16_t)(FIRST_LITERAL + slot->literal_plus_1 - 1);
    return emit(writer, literal) ? node->member_masks[slot->index] : 0;
}

static size_t count_digits(const uint8_t *in) {
    size_t count = 0;
    while (in[count] >= '0' && in[count] <= '9') {
        count++;
    }
    return count;
}

static uint64_t write_number(Writer *writer, const Node *node) {
    const uint8_t *start = writer->text + writer->at, *in = start;
    in += *in == '-';
    size_t digits = count_digits(in);
    if (digits == 0 || (digits > 1 && *in == '0')) {
        return 0;
    }
    in += digits;
    if (*in == '.') {
        digits = count_digits(++in);
        if (digits == 0) {
            return 0;
        }
        in += digits;
    }
    if (*in == 'e' || *in == 'E') {
        in++;
        in += *in == '+' || *in == '-';
        digits = count_digits(in);
        if (digits == 0) {
            return 0;
        }
        in += digits;
    }
    char text[MAX_NUMBER];
    size_t length = (size_t)(in - start);
    if (length >= MAX_NUMBER) {
        return 0;
    }
    writer->at += length;
    memcpy(text, start, length);
    text[length] = 0;
    length = number_as_python_writes_it(text, length);
    if (length == 0 || (node->opens && !emit(writer, NUMBER)) || !make_room(writer, length + 1)) {
        return 0;
    }
    uint16_t *codes = writer->codes + writer->used;
    for (size_t i = 0; i < length; i++) {
        codes[i] = (uint8_t)text[i];
    }
    codes[length] = END;
    writer->used += length + 1;
    return accepted_by(node->numbers, node->number_count, codes, length);
}

static uint64_t write_value(Writer *writer, const Node *node, int depth);

static const Key *write_key(Writer *writer, Keys *keys) {
    size_t start = writer->used;
    writer->at++;
    if (!write_string(writer)) {
        return NULL;
    }
    size_t length = writer->used - start;
    const NameSlot *slot = find_name(writer->codec, &keys->node->known, writer->codes + start, length);
    if (slot != NULL) {
        writer->used = start;
        return emit(writer, (uint16_t)(FIRST_LITERAL + slot->literal_plus_1 - 1)) ? add_known(keys, slot->index) : NULL;
    }
    return emit(writer, END) ? add_free(keys, &writer->seen, writer->codes, start, length) : NULL;
}

static uint64_t write_object(Writer *writer, const Node *node, int depth) {
    if (node->shape_count == 0 || depth > MAX_DEPTH || (node->opens && !emit(writer, OBJECT))) {
        return 0;
    }
    Keys keys;
    begin_keys(&keys, node, &writer->seen);
    writer->at++;
    uint8_t next = skip_space(writer);
    while (next != '}') {
        const Key *key = next == '"' ? write_key(writer, &keys) : NULL;
        if (key == NULL || skip_space(writer) != ':') {
            return 0;
        }
        writer->at++;
        uint64_t accepted = write_value(writer, key->child, depth + 1);
        if (accepted == 0 || !narrow(&keys, key, accepted)) {
            return 0;
        }
        next = skip_space(writer);
        if (next == ',') {
            writer->at++;
            next = skip_space(writer);
            if (next != '"') {
                return 0;
            }
        } else if (next != '}') {
            return 0;
        }
    }
    writer->at++;
    return emit(writer, OBJECT_END) ? shapes_at_end(&keys, &writer->seen) : 0;
}

static uint64_t write_array(Writer *writer, const Node *node, int depth) {
    if (node->array_count == 0 || depth > MAX_DEPTH || (node->opens && !emit(writer, ARRAY))) {
        return 0;
    }
    uint64_t alive = ~(uint64_t)0, length = 0;
    writer->at++;
    int more = skip_space(writer) != ']';
    while (more) {
        uint64_t accepted = write_value(writer, node->item, depth + 1);
        alive = narrow_items(node, alive, accepted);
        uint8_t next = skip_space(writer);
        more = next == ',';
        if (accepted == 0 || alive == 0 || (!more && next != ']')) {
            return 0;
        }
        writer->at += more;
        length++;
    }
    writer->at++;
    return emit(writer, ARRAY_END) ? arrays_of_length(node, alive, length) : 0;
}

/* Writes the value that stands next, and returns the alternatives that accept it; 0 to give up. */
static uint64_t write_value(Writer *writer, const Node *node, int depth) {
    switch (skip_space(writer)) {
    case '"':
        return write_text(writer, node);
    case '{':
        return write_object(writer, node, depth);
    case '[':
        return write_array(writer, node, depth);
    case 'n':
        return take_word(writer, "null", 4) && emit(writer, NULL_VALUE) ? node->null_mask : 0;
    case 't':
        return take_word(writer, "true", 4) && emit(writer, TRUE_VALUE) ? node->true_mask : 0;
    case 'f':
        return take_word(writer, "false", 5) && emit(writer, FALSE_VALUE) ? node->false_mask : 0;
    default:
        return write_number(writer, node);
    }
}

/* ---- base tokens to ids: the longest token at each place ---- */

static Edge *find_edge(const Codec *codec, uint32_t from, uint16_t code) { /* or the free slot for it */
    uint32_t slots = (uint32_t)1 << (32 - codec->edge_shift);
    uint32_t at = (from * 0x9E3779B1u ^ code * 0x85EBCA6Bu) >> codec->edge_shift;
    while (codec->edges[at].from != 0 && (codec->edges[at].from != from || codec->edges[at].code != code)) {
        at = (at + 1) & (slots - 1);
    }
    return &codec->edges[at];
}

static PyObject *ids_of(const Codec *codec, uint16_t *codes, size_t count) {
    size_t id_count = 0;
    for (size_t at = 0; at < count; id_count++) { /* ids are written over the codes that are done with */
        uint32_t state = codec->first_state[codes[at]];
        uint16_t token = codes[at++];
        for (size_t ahead = at; state != 0 && ahead < count;) {
            const Edge *edge = find_edge(codec, state, codes[ahead++]);
            state = edge->to;
            if (edge->token != 0) {
                token = edge->token;
                at = ahead;
            }
        }
        codes[id_count] = token;
    }
    PyObject *list = PyList_New((Py_ssize_t)id_count);
    for (size_t i = 0; list != NULL && i < id_count; i++) {
        PyObject *number = codec->numbers[codes[i]];
        Py_INCREF(number);
        if (PyList_SetItem(list, (Py_ssize_t)i, number) < 0) { /* it cannot fail */
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *codec_encode(PyObject *self, PyObject *given) {
    Writer writer = {.codec = (const Codec *)self};
    Py_ssize_t length = 0;
    PyObject *ids = NULL;
    if (PyUnicode_Check(given)) {
        writer.text = (const uint8_t *)PyUnicode_AsUTF8AndSize(given, &length);
        PyErr_Clear(); /* lone surrogates */
    }
    if (writer.text == NULL) {
        Py_RETURN_NONE;
    }
    writer.length = (size_t)length;
    if (make_room(&writer, writer.length + 64) && write_value(&writer, writer.codec->nodes, 1) != 0) {
        skip_space(&writer);
        if (writer.at == writer.length) {
            ids = ids_of(writer.codec, writer.codes, writer.used);
        }
    }
    PyMem_Free(writer.codes);
    PyMem_Free(writer.seen.items);
    if (ids == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return ids;
}

/* ---- base tokens to JSON text ---- */

typedef struct {
    const Codec *codec;
    const uint16_t *codes; /* with an END behind the last */
    size_t at, count;
    char *json; /* whether its texts are UTF-8 is looked at when all is there */
    size_t used, room;
    SeenStack seen;
} Reader;

static const char hex_digits[] = "0123456789abcdef";
static const uint8_t escape_length[256] = { /* of a byte in a JSON text, less the byte itself */
    5, 5, 5, 5, 5, 5, 5, 5, 1, 1, 1, 5, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
    ['"'] = 1, ['\\'] = 1,
};

static char *escape(char *out, uint8_t byte) {
    static const char letters[] = "btn\0fr"; /* of 8 to 13; 11 has none */
    *out++ = '\\';
    if (escape_length[byte] == 1) {
        *out++ = byte < ' ' ? letters[byte - 8] : (char)byte;
        return out;
    }
    memcpy(out, "u00", 3);
    out[3] = hex_digits[byte >> 4];
    out[4] = hex_digits[byte & 15];
    return out + 5;
}

static int make_json_room(Reader *reader, size_t more) {
    if (reader->room - reader->used >= more) {
        return 1;
    }
    if (more > PY_SSIZE_T_MAX / 4 || reader->room > PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return 0;
    }
    size_t room = 2 * reader->room + more;
    char *json = PyMem_Realloc(reader->json, room);
    if (json == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    reader->json = json;
    reader->room = room;
    return 1;
}

static int append(Reader *reader, const char *text, size_t length) {
    if (!make_json_room(reader, length)) {
        return 0;
    }
    memcpy(reader->json + reader->used, text, length);
    reader->used += length;
    return 1;
}

/* The place of the END of a text or number; *escapes: how much longer it is as JSON. reader->count: there is none. */
static size_t find_end(const Reader *reader, size_t *escapes) {
    size_t at = reader->at, more = 0;
    while (reader->codes[at] < 256) {
        more += escape_length[reader->codes[at++]];
    }
    *escapes = more;
    return reader->codes[at] == END ? at : reader->count;
}

/* Copies a text up to its END as a JSON string. Returns its length in codes, or -1 to give up. */
static Py_ssize_t read_string(Reader *reader) {
    size_t escapes, start = reader->at, stop = find_end(reader, &escapes);
    if (stop == reader->count || !make_json_room(reader, stop - start + escapes + 2)) {
        return -1;
    }
    char *out = reader->json + reader->used;
    *out++ = '"';
    for (size_t at = start; at < stop; at++) {
        uint8_t byte = (uint8_t)reader->codes[at];
        if (escape_length[byte] != 0) {
            out = escape(out, byte);
        } else {
            *out++ = (char)byte;
        }
    }
    *out++ = '"';
    reader->used = (size_t)(out - reader->json);
    reader->at = stop + 1;
    return (Py_ssize_t)(stop - start);
}

static uint64_t read_number(Reader *reader, const Node *node) {
    size_t escapes, start = reader->at, stop = find_end(reader, &escapes), length = stop - start;
    if (stop == reader->count || length == 0 || length >= MAX_NUMBER) {
        return 0;
    }
    uint64_t accepted = accepted_by(node->numbers, node->number_count, reader->codes + start, length);
    char text[MAX_NUMBER];
    for (size_t i = 0; i < length; i++) {
        text[i] = (char)reader->codes[start + i];
    }
    text[length] = 0;
    if (accepted == 0 || (length = number_as_python_writes_it(text, length)) == 0) {
        return 0;
    }
    reader->at = stop + 1;
    return append(reader, text, length) ? accepted : 0;
}

static uint64_t read_value(Reader *reader, const Node *node, int depth);

static const Key *read_key(Reader *reader, Keys *keys) {
    uint32_t code = reader->codes[reader->at];
    if (code >= FIRST_LITERAL) {
        const NameSlot *slot = find_literal(reader->codec, &keys->node->known, code - FIRST_LITERAL);
        const Literal *literal = &reader->codec->literals[code - FIRST_LITERAL];
        reader->at++;
        return slot && append(reader, literal->quoted, literal->quoted_length) ? add_known(keys, slot->index) : NULL;
    }
    size_t start = reader->at;
    Py_ssize_t length = read_string(reader);
    if (length < 0 || find_name(reader->codec, &keys->node->known, reader->codes + start, (size_t)length) != NULL) {
        return NULL;
    }
    return add_free(keys, &reader->seen, reader->codes, start, (size_t)length);
}

static uint64_t read_object(Reader *reader, const Node *node, int depth) {
    if (depth > MAX_DEPTH || !append(reader, "{", 1)) {
        return 0;
    }
    Keys keys;
    begin_keys(&keys, node, &reader->seen);
    while (reader->codes[reader->at] != OBJECT_END) {
        if (reader->at == reader->count || (keys.count && !append(reader, ",", 1))) {
            return 0;
        }
        const Key *key = read_key(reader, &keys);
        if (key == NULL || !append(reader, ":", 1)) {
            return 0;
        }
        uint64_t accepted = read_value(reader, key->child, depth + 1);
        if (accepted == 0 || !narrow(&keys, key, accepted)) {
            return 0;
        }
    }
    reader->at++;
    return append(reader, "}", 1) ? shapes_at_end(&keys, &reader->seen) : 0;
}

static uint64_t read_array(Reader *reader, const Node *node, int depth) {
    if (depth > MAX_DEPTH || !append(reader, "[", 1)) {
        return 0;
    }
    uint64_t alive = ~(uint64_t)0, length = 0;
    while (reader->codes[reader->at] != ARRAY_END) {
        if (reader->at == reader->count || (length && !append(reader, ",", 1))) {
            return 0;
        }
        uint64_t accepted = read_value(reader, node->item, depth + 1);
        alive = narrow_items(node, alive, accepted);
        if (accepted == 0 || alive == 0) {
            return 0;
        }
        length++;
    }
    reader->at++;
    return append(reader, "]", 1) ? arrays_of_length(node, alive, length) : 0;
}

/* Reads the value that stands next, and returns the alternatives that accept it; 0 to give up. */
static uint64_t read_value(Reader *reader, const Node *node, int depth) {
    if (reader->at == reader->count) {
        return 0;
    }
    uint32_t code = reader->codes[reader->at];
    /* An opening token stands only where the node allows other kinds too. */
    if (node->shape_count && (!node->opens || code == OBJECT)) {
        reader->at += (size_t)node->opens;
        return read_object(reader, node, depth);
    }
    if (node->array_count && (!node->opens || code == ARRAY)) {
        reader->at += (size_t)node->opens;
        return read_array(reader, node, depth);
    }
    if (node->number_count && (!node->opens || code == NUMBER)) {
        reader->at += (size_t)node->opens;
        return read_number(reader, node);
    }
    if (code >= NULL_VALUE && code <= FALSE_VALUE) {
        reader->at++;
        switch (code) {
        case NULL_VALUE:
            return append(reader, "null", 4) ? node->null_mask : 0;
        case TRUE_VALUE:
            return append(reader, "true", 4) ? node->true_mask : 0;
        default:
            return append(reader, "false", 5) ? node->false_mask : 0;
        }
    }
    if (node->has_texts && (code < 256 || code == END)) {
        size_t start = reader->at;
        Py_ssize_t length = read_string(reader);
        if (length < 0) {
            return 0;
        }
        return node->any_text | accepted_by(node->forms, node->form_count, reader->codes + start, (size_t)length);
    }
    if (code >= FIRST_LITERAL) {
        const NameSlot *slot = find_literal(reader->codec, &node->members, code - FIRST_LITERAL);
        const Literal *literal = &reader->codec->literals[code - FIRST_LITERAL];
        reader->at++;
        return slot && append(reader, literal->quoted, literal->quoted_length) ? node->member_masks[slot->index] : 0;
    }
    return 0;
}

/* The ids in a list or tuple as numbers, and how many base tokens they are. NULL to give up. */
static uint16_t *ids_in(const Codec *codec, PyObject *given, Py_ssize_t count, size_t *code_count) {
    int is_list = PyList_Check(given);
    uint16_t *ids = (size_t)count <= PY_SSIZE_T_MAX / sizeof *ids ? PyMem_Malloc((size_t)count * sizeof *ids) : NULL;
    if (ids == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    size_t total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = is_list ? PyList_GetItem(given, i) : PyTuple_GetItem(given, i); /* borrowed */
        long id = item && PyLong_Check(item) ? PyLong_AsLong(item) : -1; /* runs no code of anybody's */
        if (id < 0 || id >= (long)codec->id_count) {
            PyErr_Clear();
            PyMem_Free(ids);
            return NULL;
        }
        ids[i] = (uint16_t)id;
        total += codec->expansion_at[id + 1] - codec->expansion_at[id]; /* a count of ids that fit memory: no overflow */
    }
    *code_count = total;
    return ids;
}

static PyObject *codec_decode(PyObject *self, PyObject *given) {
    const Codec *codec = (const Codec *)self;
    Reader reader = {.codec = codec};
    Py_ssize_t count = PyList_Check(given) ? PyList_Size(given) : PyTuple_Check(given) ? PyTuple_Size(given) : 0;
    uint16_t *ids = count > 0 ? ids_in(codec, given, count, &reader.count) : NULL;
    PyObject *text = NULL, *result = NULL;
    uint16_t *codes = NULL;
    if (ids != NULL && reader.count < PY_SSIZE_T_MAX / sizeof *codes - SPARE) {
        codes = PyMem_Malloc((reader.count + SPARE) * sizeof *codes);
        if (codes == NULL) {
            PyErr_NoMemory();
        }
    }
    if (codes != NULL) {
        uint16_t *out = codes;
        for (Py_ssize_t i = 0; i < count; i++) {
            const uint16_t *in = codec->expansions + codec->expansion_at[ids[i]];
            size_t length = codec->expansion_at[ids[i] + 1] - codec->expansion_at[ids[i]];
            memcpy(out, in, SPARE * sizeof *out); /* most are no longer: a copy of fixed size is quicker */
            if (length > SPARE) {
                memcpy(out, in, length * sizeof *out);
            }
            out += length;
        }
        *out = END;
        reader.codes = codes;
        if (read_value(&reader, codec->nodes, 1) != 0) {
            Py_ssize_t consumed = 0;
            size_t place = 0;
            while (place < reader.at) {
                place += codec->expansion_at[ids[consumed] + 1] - codec->expansion_at[ids[consumed]];
                consumed++;
            }
            if (place == reader.at) { /* else a token reaches beyond the end of the document */
                text = PyUnicode_FromStringAndSize(reader.json, (Py_ssize_t)reader.used);
            }
            if (text != NULL) {
                result = Py_BuildValue("(Nnn)", text, consumed, count);
            } else {
                PyErr_Clear(); /* not UTF-8 */
            }
        }
    }
    PyMem_Free(ids);
    PyMem_Free(codes);
    PyMem_Free(reader.json);
    PyMem_Free(reader.seen.items);
    if (result == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return result;
}

/* ---- making a codec of the numbers that native.py has written ---- */

typedef struct {
    const unsigned char *at;
    size_t left; /* numbers, of 64 bits each */
    int is_bad;
} Numbers;

static uint64_t take(Numbers *numbers, uint64_t largest) {
    uint64_t number = 0;
    if (numbers->left > 0) {
        memcpy(&number, numbers->at, sizeof number);
        numbers->at += sizeof number;
        numbers->left--;
        if (number <= largest) {
            return number;
        }
    }
    numbers->is_bad = 1;
    return 0;
}

static uint32_t take_count(Numbers *numbers) { /* of what takes one number each at least */
    return (uint32_t)take(numbers, numbers->left < UINT32_MAX / 64 ? numbers->left : UINT32_MAX / 64);
}

static uint64_t take_index(Numbers *numbers, uint64_t count) {
    if (count == 0) {
        numbers->is_bad = 1;
        return 0;
    }
    return take(numbers, count - 1);
}

static int load_literal(Codec *codec, Numbers *numbers, Literal *literal) {
    literal->length = take_count(numbers);
    uint16_t *codes = allocate(codec, literal->length, sizeof *codes);
    char *quoted = allocate(codec, 6 * literal->length + 2, 1);
    if (codes == NULL || quoted == NULL) {
        return 0;
    }
    literal->codes = codes;
    literal->quoted = quoted;
    *quoted++ = '"';
    for (size_t i = 0; i < literal->length; i++) {
        codes[i] = (uint16_t)take(numbers, 255);
        if (escape_length[codes[i]]) {
            quoted = escape(quoted, (uint8_t)codes[i]);
        } else {
            *quoted++ = (char)codes[i];
        }
    }
    *quoted++ = '"';
    literal->quoted_length = (size_t)(quoted - literal->quoted);
    literal->hash = hash_of(codes, literal->length);
    return 1;
}

static int load_automaton(Codec *codec, Numbers *numbers, Automaton *automaton) {
    automaton->state_count = (uint32_t)take(numbers, UINT16_MAX - 1);
    automaton->class_count = (uint32_t)take(numbers, 256);
    uint8_t *classes = allocate(codec, 256, 1);
    uint8_t *accepting = allocate(codec, automaton->state_count, 1);
    uint16_t *following = allocate(codec, (size_t)automaton->state_count * automaton->class_count, sizeof *following);
    if (classes == NULL || accepting == NULL || following == NULL) {
        return 0;
    }
    for (int byte = 0; byte < 256 && automaton->state_count; byte++) {
        classes[byte] = (uint8_t)take_index(numbers, automaton->class_count);
    }
    for (uint32_t state = 0; state < automaton->state_count; state++) {
        accepting[state] = (uint8_t)take(numbers, 1);
        for (uint32_t i = 0; i < automaton->class_count; i++) {
            following[(size_t)state * automaton->class_count + i] = (uint16_t)take(numbers, automaton->state_count);
        }
    }
    automaton->classes = classes;
    automaton->accepting = accepting;
    automaton->following = following;
    return 1;
}

static Form *load_forms(Codec *codec, Numbers *numbers, const Automaton *automata, uint32_t *count) {
    *count = take_count(numbers);
    Form *forms = allocate(codec, *count, sizeof *forms);
    for (uint32_t i = 0; forms != NULL && i < *count; i++) {
        forms[i].mask = take(numbers, UINT64_MAX);
        forms[i].automaton = &automata[take_index(numbers, codec->automaton_count)];
    }
    return forms;
}

static int prepare_names(Codec *codec, Names *names, uint32_t count) {
    uint32_t slots = 2;
    while (slots < 2 * count) {
        slots *= 2;
    }
    names->slot_mask = slots - 1;
    names->slots = allocate(codec, slots, sizeof *names->slots);
    return names->slots != NULL;
}

static void load_name(Codec *codec, Numbers *numbers, Names *names, uint32_t index) {
    uint32_t literal = (uint32_t)take_index(numbers, codec->literal_count);
    if (numbers->is_bad || find_literal(codec, names, literal) != NULL) {
        numbers->is_bad = 1;
        return;
    }
    uint32_t at = codec->literals[literal].hash;
    while (names->slots[at & names->slot_mask].literal_plus_1 != 0) {
        at++;
    }
    names->slots[at & names->slot_mask] = (NameSlot){literal + 1, index};
}

static int load_key(Codec *codec, Numbers *numbers, const Node *node, Key *key) {
    uint64_t *masks = allocate(codec, node->shape_count, sizeof *masks);
    if (masks == NULL) {
        return 0;
    }
    key->child = &codec->nodes[take_index(numbers, codec->node_count)];
    key->masks = masks;
    for (uint32_t i = 0; i < node->shape_count; i++) {
        masks[i] = take(numbers, UINT64_MAX);
    }
    return 1;
}

static int load_arrays(Codec *codec, Numbers *numbers, Node *node) {
    node->array_count = take_count(numbers);
    node->arrays = allocate(codec, node->array_count, sizeof *node->arrays);
    if (node->arrays == NULL) {
        return 0;
    }
    for (uint32_t i = 0; i < node->array_count; i++) {
        ArrayShape *array = &node->arrays[i];
        array->mask = take(numbers, UINT64_MAX);
        array->minimum = take(numbers, UINT64_MAX);
        array->maximum = take(numbers, UINT64_MAX);
        array->item_mask = take(numbers, UINT64_MAX);
    }
    if (node->array_count != 0) {
        node->item = &codec->nodes[take_index(numbers, codec->node_count)];
    }
    return 1;
}

static int load_objects(Codec *codec, Numbers *numbers, const Automaton *automata, Node *node) {
    uint32_t known_count = take_count(numbers);
    node->shape_count = take_count(numbers);
    if (known_count > MAX_KNOWN) {
        numbers->is_bad = 1;
        return 1;
    }
    node->known_words = (known_count + 63) / 64;
    node->shapes = allocate(codec, node->shape_count, sizeof *node->shapes);
    node->keys = allocate(codec, known_count, sizeof *node->keys);
    if (node->shapes == NULL || node->keys == NULL || !prepare_names(codec, &node->known, known_count)) {
        return 0;
    }
    for (uint32_t i = 0; i < node->shape_count; i++) {
        ObjectShape *shape = &node->shapes[i];
        shape->mask = take(numbers, UINT64_MAX);
        shape->minimum = take(numbers, UINT64_MAX);
        shape->maximum = take(numbers, UINT64_MAX);
        shape->required = allocate(codec, node->known_words, sizeof *shape->required);
        if (shape->required == NULL) {
            return 0;
        }
        for (uint32_t left = take_count(numbers); left > 0; left--) {
            uint64_t index = take_index(numbers, known_count);
            if (!numbers->is_bad) {
                shape->required[index / 64] |= (uint64_t)1 << (index % 64);
            }
        }
    }
    for (uint32_t i = 0; i < known_count; i++) {
        load_name(codec, numbers, &node->known, i);
        if (numbers->is_bad || !load_key(codec, numbers, node, &node->keys[i])) {
            return numbers->is_bad;
        }
    }
    node->patterns = load_forms(codec, numbers, automata, &node->pattern_count);
    node->free_count = take_count(numbers);
    node->free_keys = allocate(codec, node->free_count, sizeof *node->free_keys);
    if (node->patterns == NULL || node->free_keys == NULL) {
        return 0;
    }
    for (uint32_t i = 0; i < node->free_count; i++) {
        node->free_keys[i].matched = take(numbers, UINT64_MAX);
        if (!load_key(codec, numbers, node, &node->free_keys[i].key)) {
            return 0;
        }
    }
    return 1;
}

static int load_node(Codec *codec, Numbers *numbers, const Automaton *automata, Node *node) {
    node->opens = (int)take(numbers, 1);
    node->has_texts = (int)take(numbers, 1);
    node->null_mask = take(numbers, UINT64_MAX);
    node->true_mask = take(numbers, UINT64_MAX);
    node->false_mask = take(numbers, UINT64_MAX);
    node->any_text = take(numbers, UINT64_MAX);
    node->forms = load_forms(codec, numbers, automata, &node->form_count);
    node->numbers = load_forms(codec, numbers, automata, &node->number_count);
    uint32_t member_count = take_count(numbers);
    node->member_masks = allocate(codec, member_count, sizeof *node->member_masks);
    if (node->forms == NULL || node->numbers == NULL || node->member_masks == NULL ||
        !prepare_names(codec, &node->members, member_count)) {
        return 0;
    }
    for (uint32_t i = 0; i < member_count; i++) {
        load_name(codec, numbers, &node->members, i);
        node->member_masks[i] = take(numbers, UINT64_MAX);
    }
    return load_arrays(codec, numbers, node) && load_objects(codec, numbers, automata, node);
}

static int grow_edges(Codec *codec) { /* twice the slots; the old table is freed with the codec */
    Edge *old = codec->edges;
    size_t slots = (size_t)1 << (32 - codec->edge_shift);
    codec->edge_shift--;
    codec->edges = codec->edge_shift > 2 ? allocate(codec, 2 * slots, sizeof *old) : NULL;
    for (size_t i = 0; codec->edges != NULL && i < slots; i++) {
        if (old[i].from != 0) {
            *find_edge(codec, old[i].from, old[i].code) = old[i];
        }
    }
    return codec->edges != NULL;
}

static int add_token(Codec *codec, uint32_t id) {
    const uint16_t *codes = codec->expansions + codec->expansion_at[id];
    uint32_t length = codec->expansion_at[id + 1] - codec->expansion_at[id];
    uint32_t *state = &codec->first_state[codes[0]];
    for (uint32_t i = 1; i < length; i++) {
        if (*state == 0) {
            *state = ++codec->state_count;
        }
        Edge *edge = find_edge(codec, *state, codes[i]);
        if (edge->from == 0) {
            if (2 * ++codec->edge_count > (uint32_t)1 << (32 - codec->edge_shift)) {
                if (!grow_edges(codec)) {
                    return 0;
                }
                edge = find_edge(codec, *state, codes[i]);
            }
            edge->from = *state;
            edge->code = codes[i];
        }
        if (i == length - 1) {
            edge->token = (uint16_t)id;
        }
        state = &edge->to;
    }
    return 1;
}

static int load_vocabulary(Codec *codec, Numbers *numbers) {
    uint32_t token_count = (uint32_t)take(numbers, MAX_IDS - codec->base_size);
    uint32_t code_count = take_count(numbers); /* of all tokens */
    codec->id_count = codec->base_size + token_count;
    codec->expansions = allocate(codec, (size_t)codec->base_size + code_count + SPARE, sizeof *codec->expansions);
    codec->expansion_at = allocate(codec, (size_t)codec->id_count + 1, sizeof *codec->expansion_at);
    codec->first_state = allocate(codec, codec->base_size, sizeof *codec->first_state);
    codec->edge_shift = 20;
    codec->edges = allocate(codec, (size_t)1 << (32 - codec->edge_shift), sizeof *codec->edges);
    if (!codec->expansions || !codec->expansion_at || !codec->first_state || !codec->edges) {
        return 0;
    }
    uint32_t at = 0;
    for (uint32_t id = 0; id < codec->id_count; id++) {
        if (id < codec->base_size) {
            codec->expansions[at++] = (uint16_t)id;
        } else {
            uint64_t length = take(numbers, codec->base_size + code_count - at);
            numbers->is_bad |= length < 2;
            for (; length > 0; length--) {
                codec->expansions[at++] = (uint16_t)take_index(numbers, codec->base_size);
            }
        }
        codec->expansion_at[id + 1] = at;
        if (id >= codec->base_size && (numbers->is_bad || !add_token(codec, id))) {
            return numbers->is_bad;
        }
    }
    PyObject **ids = allocate(codec, codec->id_count, sizeof *ids);
    codec->numbers = ids;
    for (uint32_t id = 0; ids != NULL && id < codec->id_count; id++) {
        ids[id] = PyLong_FromUnsignedLong(id);
        if (ids[id] == NULL) {
            return 0;
        }
    }
    return ids != NULL;
}

static int load(Codec *codec, Numbers *numbers) { /* 0 where memory has run out */
    codec->literal_count = (uint32_t)take(numbers, MAX_CODES - FIRST_LITERAL);
    codec->automaton_count = take_count(numbers);
    codec->node_count = take_count(numbers);
    codec->base_size = FIRST_LITERAL + codec->literal_count;
    numbers->is_bad |= codec->node_count == 0;
    codec->literals = allocate(codec, codec->literal_count, sizeof *codec->literals);
    Automaton *automata = allocate(codec, codec->automaton_count, sizeof *automata);
    codec->nodes = allocate(codec, codec->node_count, sizeof *codec->nodes);
    if (codec->literals == NULL || automata == NULL || codec->nodes == NULL) {
        return 0;
    }
    for (uint32_t i = 0; i < codec->literal_count && !numbers->is_bad; i++) {
        if (!load_literal(codec, numbers, &codec->literals[i])) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < codec->automaton_count && !numbers->is_bad; i++) {
        if (!load_automaton(codec, numbers, &automata[i])) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < codec->node_count && !numbers->is_bad; i++) {
        if (!load_node(codec, numbers, automata, &codec->nodes[i])) {
            return 0;
        }
    }
    return numbers->is_bad || load_vocabulary(codec, numbers);
}

static PyObject *codec_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    const char *bytes;
    Py_ssize_t length;
    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "y#:Codec", &bytes, &length)) {
        return NULL;
    }
    Numbers numbers = {(const unsigned char *)bytes, (size_t)length / sizeof(uint64_t), 0};
    allocfunc allocate_object = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate_object(type, 0);
    if (self != NULL && !load((Codec *)self, &numbers)) {
        Py_CLEAR(self);
    } else if (self != NULL && (numbers.is_bad || numbers.left != 0)) {
        PyErr_SetString(PyExc_ValueError, "not the numbers of a grammar and vocabulary that this codec takes");
        Py_CLEAR(self);
    }
    return self;
}

static void codec_dealloc(PyObject *self) {
    Codec *codec = (Codec *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (uint32_t id = 0; codec->numbers != NULL && id < codec->id_count; id++) {
        Py_XDECREF(codec->numbers[id]);
    }
    while (codec->blocks != NULL) {
        Block *block = codec->blocks;
        codec->blocks = block->next;
        PyMem_Free(block);
    }
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"encode", codec_encode, METH_O, "Token ids of a JSON text; None: go the way in Python."},
    {"decode", codec_decode, METH_O, "(JSON text, ids consumed, ids given); None: go the way in Python."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, codec_new},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "A grammar and a vocabulary at work; see native.py."},
    {0, NULL},
};

static PyType_Spec spec = {"nanochat_tct.tokenizer._native.Codec", sizeof(Codec), 0, Py_TPFLAGS_DEFAULT, slots};

static int add_types(PyObject *module) {
    PyObject *type = PyType_FromSpec(&spec);
    int result = type == NULL ? -1 : PyModule_AddObjectRef(module, "Codec", type);
    Py_XDECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "See native.py.", 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
