/* The tokenizer's quick way in C: JSON text to token ids and back, along a grammar that native.py hands over.

   Only what goes well is done here. Whatever is wrong with a document or with ids, and whatever is rare (a lone
   surrogate, an integer of more than 309 digits), ends in None: the caller then goes the way in Python, which says
   what is wrong and where, or handles the rare case. Where a result comes out, it is the one of grammar.py and
   segment.py, whose terms are used here: a base token is a code, a mask has a bit for each alternative of a node.

   Documents and ids come from strangers. Every read is bounded, the depth of recursion too, and memory grows with the
   input only. Functions that give up return 0 or NULL; an exception is set only where memory has run out. */

#define Py_LIMITED_API 0x030b0000 /* one build serves Python 3.11 and later */
#include <Python.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

enum { END = 257, OBJECT, OBJECT_END, ARRAY, ARRAY_END, NUMBER, NULL_VALUE, TRUE_VALUE, FALSE_VALUE, FIRST_LITERAL };
enum {
    MAX_DEPTH = 128,
    MAX_IDS = 1 << 16,
    MAX_CODES = 0xD800,
    MAX_KNOWN = 1024, /* keys that one node knows: a bit for each in a frame of the recursion */
    MAX_FREE = 1024,  /* free keys of one object, each of which is compared with all before it */
    MAX_NUMBER = 400, /* characters */
    MAX_INTEGER_DIGITS = 309,
    SPARE = 8, /* codes behind the last that may be copied with it */
};

/* ---- the grammar and the vocabulary ---- */

typedef struct {
    const uint8_t *classes;    /* of each byte */
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
} AdditionalKey;

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
    AdditionalKey *free_keys;
    uint32_t form_count, number_count, array_count, shape_count, pattern_count, free_count, known_words;
};

typedef struct {
    uint32_t from, to;    /* states of the trie; from 0: a free slot */
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

static size_t length_of_id(const Codec *codec, uint32_t id) { /* in base tokens */
    return codec->expansion_at[id + 1] - codec->expansion_at[id];
}

static uint32_t hash_of(const uint16_t *codes, size_t length) { /* FNV-1a */
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ codes[i]) * 16777619u;
    return hash;
}

static const NameSlot *find_name(const Codec *codec, const Names *names, const uint16_t *codes, size_t length) {
    if (names->slots == NULL) return NULL;
    uint32_t hash = hash_of(codes, length);
    for (uint32_t i = hash;; i++) { /* at least half of the slots are free */
        const NameSlot *slot = &names->slots[i & names->slot_mask];
        if (slot->literal_plus_1 == 0) return NULL;
        const Literal *literal = &codec->literals[slot->literal_plus_1 - 1];
        if (literal->hash == hash && literal->length == length &&
            memcmp(literal->codes, codes, length * sizeof *codes) == 0) {
            return slot;
        }
    }
}

static const NameSlot *find_literal(const Codec *codec, const Names *names, uint32_t literal) {
    if (names->slots == NULL) return NULL;
    for (uint32_t i = codec->literals[literal].hash;; i++) {
        const NameSlot *slot = &names->slots[i & names->slot_mask];
        if (slot->literal_plus_1 == 0 || slot->literal_plus_1 == literal + 1) {
            return slot->literal_plus_1 ? slot : NULL;
        }
    }
}

static int accepts(const Automaton *automaton, const uint16_t *codes, size_t length) { /* codes are bytes */
    if (automaton->state_count == 0) return 0;
    uint32_t state = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t next = automaton->following[state * automaton->class_count + automaton->classes[codes[i]]];
        if (next == 0) return 0;
        state = next - 1;
    }
    return automaton->accepting[state];
}

static uint64_t accepted_by(const Form *forms, uint32_t count, const uint16_t *codes, size_t length) {
    uint64_t accepted = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (accepts(forms[i].automaton, codes, length)) accepted |= forms[i].mask;
    }
    return accepted;
}

static uint64_t arrays_of_length(const Node *node, uint64_t alive, uint64_t length) {
    uint64_t fitting = 0;
    for (uint32_t i = 0; i < node->array_count; i++) {
        const ArrayShape *array = &node->arrays[i];
        if (length >= array->minimum && length <= array->maximum) fitting |= alive & array->mask;
    }
    return fitting;
}

static uint64_t narrow_items(const Node *node, uint64_t alive, uint64_t accepted) {
    for (uint32_t i = 0; i < node->array_count; i++) {
        if ((node->arrays[i].item_mask & accepted) == 0) alive &= ~node->arrays[i].mask;
    }
    return alive;
}

/* The memory with room for more items; NULL, and an exception, where there is none. */
static void *grown(void *memory, size_t *room, size_t used, size_t more, size_t size) {
    if (*room - used >= more) return memory;
    size_t largest = PY_SSIZE_T_MAX / 4 / size;
    if (more > largest || *room > largest) {
        PyErr_NoMemory();
        return NULL;
    }
    void *larger = PyMem_Realloc(memory, (2 * *room + more) * size);
    if (larger == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *room = 2 * *room + more;
    return larger;
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
    if (keys->present[index / 64] & bit) return NULL;
    keys->present[index / 64] |= bit;
    keys->count++;
    return &keys->node->keys[index];
}

static const Key *add_free(Keys *keys, SeenStack *seen, const uint16_t *codes, size_t start, size_t length) {
    const Node *node = keys->node;
    uint64_t matched = accepted_by(node->patterns, node->pattern_count, codes + start, length);
    const Key *key = NULL;
    for (uint32_t i = 0; i < node->free_count && key == NULL; i++) {
        if (node->free_keys[i].matched == matched) key = &node->free_keys[i].key;
    }
    if (key == NULL || seen->count - keys->first_seen >= MAX_FREE) return NULL;
    uint32_t hash = hash_of(codes + start, length);
    for (size_t i = keys->first_seen; i < seen->count; i++) {
        const Seen *other = &seen->items[i];
        if (other->hash == hash && other->length == length &&
            memcmp(codes + other->start, codes + start, length * sizeof *codes) == 0) {
            return NULL;
        }
    }
    Seen *items = grown(seen->items, &seen->room, seen->count, 1, sizeof *items);
    if (items == NULL) return NULL;
    seen->items = items;
    seen->items[seen->count++] = (Seen){start, length, hash};
    keys->count++;
    return key;
}

static int narrow(Keys *keys, const Key *key, uint64_t accepted) {
    for (uint32_t i = 0; i < keys->node->shape_count; i++) {
        if ((key->masks[i] & accepted) == 0) keys->alive &= ~keys->node->shapes[i].mask;
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
        if (complete) alive |= shape->mask & keys->alive;
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
    if (length < MAX_NUMBER) memcpy(text, written, length + 1);
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
    uint16_t *codes = grown(writer->codes, &writer->room, writer->used, more, sizeof *codes);
    if (codes != NULL) writer->codes = codes;
    return codes != NULL;
}

static int emit(Writer *writer, uint16_t code) {
    if (!make_room(writer, 1)) return 0;
    writer->codes[writer->used++] = code;
    return 1;
}

static uint8_t skip_space(Writer *writer) { /* returns the byte after it */
    const uint8_t *text = writer->text;
    size_t at = writer->at;
    while (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') at++;
    writer->at = at;
    return text[at];
}

static int take_word(Writer *writer, const char *word, size_t length) {
    if (strncmp((const char *)writer->text + writer->at, word, length) != 0) return 0;
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
        if (letter == NULL) return NULL;
        *(*out)++ = (uint16_t)meanings[letter - letters];
        return in + 1;
    }
    int32_t value = four_hex_digits(in + 1);
    in += 5;
    if (value < 0 || (value >= 0xDC00 && value <= 0xDFFF)) return NULL;
    if (value >= 0xD800 && value <= 0xDBFF) { /* the first half of a pair */
        if (in[0] != '\\' || in[1] != 'u') return NULL;
        int32_t low = four_hex_digits(in + 2);
        if (low < 0xDC00 || low > 0xDFFF) return NULL;
        in += 6;
        value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
    }
    static const uint8_t first_bits[] = {0, 0xC0, 0xE0, 0xF0}; /* of UTF-8, by the number of bytes that follow */
    int left = value < 0x80 ? 0 : value < 0x800 ? 1 : value < 0x10000 ? 2 : 3;
    *(*out)++ = (uint16_t)(first_bits[left] | value >> 6 * left);
    while (left-- > 0) *(*out)++ = (uint16_t)(0x80 | (value >> 6 * left & 63));
    return in;
}

static int write_string(Writer *writer) { /* its bytes, without END; writer->at is behind the opening quote */
    if (!make_room(writer, writer->length - writer->at + 1)) { /* it cannot be longer than the rest of the text */
        return 0;
    }
    const uint8_t *in = writer->text + writer->at;
    uint16_t *out = writer->codes + writer->used;
    for (;;) {
        while (!ends_plain_text[*in]) *out++ = *in++;
        if (*in != '\\') break;
        in = write_escape(in + 1, &out);
        if (in == NULL) return 0;
    }
    if (*in != '"') { /* a control character, or the end of the text */
        return 0;
    }
    writer->at = (size_t)(in + 1 - writer->text);
    writer->used = (size_t)(out - writer->codes);
    return 1;
}

static int replace_by_literal(Writer *writer, size_t start, const NameSlot *slot) {
    writer->used = start;
    return emit(writer, (uint16_t)(FIRST_LITERAL + slot->literal_plus_1 - 1));
}

static uint64_t write_text(Writer *writer, const Node *node) {
    size_t start = writer->used;
    writer->at++;
    if (!write_string(writer)) return 0;
    const uint16_t *codes = writer->codes + start;
    size_t length = writer->used - start;
    if (node->has_texts) {
        uint64_t accepted = node->any_text | accepted_by(node->forms, node->form_count, codes, length);
        return emit(writer, END) ? accepted : 0;
    }
    const NameSlot *slot = find_name(writer->codec, &node->members, codes, length);
    return slot && replace_by_literal(writer, start, slot) ? node->member_masks[slot->index] : 0;
}

static size_t count_digits(const uint8_t *in) {
    size_t count = 0;
    while (in[count] >= '0' && in[count] <= '9') count++;
    return count;
}

static uint64_t write_number(Writer *writer, const Node *node) {
    const uint8_t *start = writer->text + writer->at, *in = start;
    in += *in == '-';
    size_t digits = count_digits(in);
    if (digits == 0 || (digits > 1 && *in == '0')) return 0;
    in += digits;
    if (*in == '.') {
        digits = count_digits(++in);
        if (digits == 0) return 0;
        in += digits;
    }
    if (*in == 'e' || *in == 'E') {
        in++;
        in += *in == '+' || *in == '-';
        digits = count_digits(in);
        if (digits == 0) return 0;
        in += digits;
    }
    char text[MAX_NUMBER];
    size_t length = (size_t)(in - start);
    if (length >= MAX_NUMBER) return 0;
    writer->at += length;
    memcpy(text, start, length);
    text[length] = 0;
    length = number_as_python_writes_it(text, length);
    if (length == 0 || (node->opens && !emit(writer, NUMBER)) || !make_room(writer, length + 1)) return 0;
    uint16_t *codes = writer->codes + writer->used;
    for (size_t i = 0; i < length; i++) codes[i] = (uint8_t)text[i];
    codes[length] = END;
    writer->used += length + 1;
    return accepted_by(node->numbers, node->number_count, codes, length);
}

static uint64_t write_value(Writer *writer, const Node *node, int depth);

static const Key *write_key(Writer *writer, Keys *keys) {
    size_t start = writer->used;
    writer->at++;
    if (!write_string(writer)) return NULL;
    size_t length = writer->used - start;
    const NameSlot *slot = find_name(writer->codec, &keys->node->known, writer->codes + start, length);
    if (slot != NULL) return replace_by_literal(writer, start, slot) ? add_known(keys, slot->index) : NULL;
    return emit(writer, END) ? add_free(keys, &writer->seen, writer->codes, start, length) : NULL;
}

static uint64_t write_object(Writer *writer, const Node *node, int depth) {
    if (node->shape_count == 0 || depth > MAX_DEPTH || (node->opens && !emit(writer, OBJECT))) return 0;
    Keys keys;
    begin_keys(&keys, node, &writer->seen);
    writer->at++;
    uint8_t next = skip_space(writer);
    while (next != '}') {
        const Key *key = next == '"' ? write_key(writer, &keys) : NULL;
        if (key == NULL || skip_space(writer) != ':') return 0;
        writer->at++;
        uint64_t accepted = write_value(writer, key->child, depth + 1);
        if (accepted == 0 || !narrow(&keys, key, accepted)) return 0;
        next = skip_space(writer);
        if (next == ',') {
            writer->at++;
            next = skip_space(writer);
            if (next != '"') return 0;
        } else if (next != '}') {
            return 0;
        }
    }
    writer->at++;
    return emit(writer, OBJECT_END) ? shapes_at_end(&keys, &writer->seen) : 0;
}

static uint64_t write_array(Writer *writer, const Node *node, int depth) {
    if (node->array_count == 0 || depth > MAX_DEPTH || (node->opens && !emit(writer, ARRAY))) return 0;
    uint64_t alive = ~(uint64_t)0, length = 0;
    writer->at++;
    int more = skip_space(writer) != ']';
    while (more) {
        uint64_t accepted = write_value(writer, node->item, depth + 1);
        alive = narrow_items(node, alive, accepted);
        uint8_t next = skip_space(writer);
        more = next == ',';
        if (accepted == 0 || alive == 0 || (!more && next != ']')) return 0;
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
    if (writer.text == NULL) Py_RETURN_NONE;
    writer.length = (size_t)length;
    if (make_room(&writer, writer.length + 64) && write_value(&writer, writer.codec->nodes, 1) != 0) {
        skip_space(&writer);
        if (writer.at == writer.length) ids = ids_of(writer.codec, writer.codes, writer.used);
    }
    PyMem_Free(writer.codes);
    PyMem_Free(writer.seen.items);
    return ids || PyErr_Occurred() ? ids : Py_NewRef(Py_None);
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

static char *write_byte(char *out, uint8_t byte) {
    static const char letters[] = "btn\0fr"; /* of 8 to 13; 11 has none */
    if (escape_length[byte] != 0) *out++ = '\\';
    if (escape_length[byte] < 5) {
        *out++ = escape_length[byte] && byte < ' ' ? letters[byte - 8] : (char)byte;
        return out;
    }
    memcpy(out, "u00", 3);
    out[3] = hex_digits[byte >> 4];
    out[4] = hex_digits[byte & 15];
    return out + 5;
}

static int make_json_room(Reader *reader, size_t more) {
    char *json = grown(reader->json, &reader->room, reader->used, more, 1);
    if (json != NULL) reader->json = json;
    return json != NULL;
}

static int append(Reader *reader, const char *text, size_t length) {
    if (!make_json_room(reader, length)) return 0;
    memcpy(reader->json + reader->used, text, length);
    reader->used += length;
    return 1;
}

/* The place of the END of a text or number; *escapes: how much longer it is as JSON. reader->count: there is none. */
static size_t find_end(const Reader *reader, size_t *escapes) {
    size_t at = reader->at, more = 0;
    while (reader->codes[at] < 256) more += escape_length[reader->codes[at++]];
    *escapes = more;
    return reader->codes[at] == END ? at : reader->count;
}

/* Copies a text up to its END as a JSON string. Returns its length in codes, or -1 to give up. */
static Py_ssize_t read_string(Reader *reader) {
    size_t escapes, start = reader->at, stop = find_end(reader, &escapes);
    if (stop == reader->count || !make_json_room(reader, stop - start + escapes + 2)) return -1;
    char *out = reader->json + reader->used;
    *out++ = '"';
    for (size_t at = start; at < stop; at++) out = write_byte(out, (uint8_t)reader->codes[at]);
    *out++ = '"';
    reader->used = (size_t)(out - reader->json);
    reader->at = stop + 1;
    return (Py_ssize_t)(stop - start);
}

static const NameSlot *read_literal(Reader *reader, const Names *names) { /* NULL to give up */
    uint32_t index = reader->codes[reader->at++] - (uint32_t)FIRST_LITERAL;
    const NameSlot *slot = find_literal(reader->codec, names, index);
    const Literal *literal = &reader->codec->literals[index];
    return slot && append(reader, literal->quoted, literal->quoted_length) ? slot : NULL;
}

static uint64_t read_number(Reader *reader, const Node *node) {
    size_t escapes, start = reader->at, stop = find_end(reader, &escapes), length = stop - start;
    if (stop == reader->count || length == 0 || length >= MAX_NUMBER) return 0;
    uint64_t accepted = accepted_by(node->numbers, node->number_count, reader->codes + start, length);
    char text[MAX_NUMBER];
    for (size_t i = 0; i < length; i++) text[i] = (char)reader->codes[start + i];
    text[length] = 0;
    if (accepted == 0 || (length = number_as_python_writes_it(text, length)) == 0) return 0;
    reader->at = stop + 1;
    return append(reader, text, length) ? accepted : 0;
}

static uint64_t read_value(Reader *reader, const Node *node, int depth);

static const Key *read_key(Reader *reader, Keys *keys) {
    uint32_t code = reader->codes[reader->at];
    if (code >= FIRST_LITERAL) {
        const NameSlot *slot = read_literal(reader, &keys->node->known);
        return slot ? add_known(keys, slot->index) : NULL;
    }
    size_t start = reader->at;
    Py_ssize_t length = read_string(reader);
    if (length < 0 || find_name(reader->codec, &keys->node->known, reader->codes + start, (size_t)length) != NULL) {
        return NULL;
    }
    return add_free(keys, &reader->seen, reader->codes, start, (size_t)length);
}

static uint64_t read_object(Reader *reader, const Node *node, int depth) {
    if (depth > MAX_DEPTH || !append(reader, "{", 1)) return 0;
    Keys keys;
    begin_keys(&keys, node, &reader->seen);
    while (reader->codes[reader->at] != OBJECT_END) {
        if (reader->at == reader->count || (keys.count && !append(reader, ",", 1))) return 0;
        const Key *key = read_key(reader, &keys);
        if (key == NULL || !append(reader, ":", 1)) return 0;
        uint64_t accepted = read_value(reader, key->child, depth + 1);
        if (accepted == 0 || !narrow(&keys, key, accepted)) return 0;
    }
    reader->at++;
    return append(reader, "}", 1) ? shapes_at_end(&keys, &reader->seen) : 0;
}

static uint64_t read_array(Reader *reader, const Node *node, int depth) {
    if (depth > MAX_DEPTH || !append(reader, "[", 1)) return 0;
    uint64_t alive = ~(uint64_t)0, length = 0;
    while (reader->codes[reader->at] != ARRAY_END) {
        if (reader->at == reader->count || (length && !append(reader, ",", 1))) return 0;
        uint64_t accepted = read_value(reader, node->item, depth + 1);
        alive = narrow_items(node, alive, accepted);
        if (accepted == 0 || alive == 0) return 0;
        length++;
    }
    reader->at++;
    return append(reader, "]", 1) ? arrays_of_length(node, alive, length) : 0;
}

/* Reads the value that stands next, and returns the alternatives that accept it; 0 to give up. */
static uint64_t read_value(Reader *reader, const Node *node, int depth) {
    if (reader->at == reader->count) return 0;
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
        if (length < 0) return 0;
        return node->any_text | accepted_by(node->forms, node->form_count, reader->codes + start, (size_t)length);
    }
    if (code >= FIRST_LITERAL) {
        const NameSlot *slot = read_literal(reader, &node->members);
        return slot ? node->member_masks[slot->index] : 0;
    }
    return 0;
}

/* The ids in a list or tuple as numbers, and how many base tokens they are. NULL to give up. */
static uint16_t *ids_in(const Codec *codec, PyObject *given, Py_ssize_t count, size_t *code_count) {
    int is_list = PyList_Check(given);
    uint16_t *ids = count < PY_SSIZE_T_MAX / 4 ? PyMem_Malloc((size_t)count * sizeof *ids) : NULL;
    if (ids == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = is_list ? PyList_GetItem(given, i) : PyTuple_GetItem(given, i); /* borrowed */
        long id = item && PyLong_Check(item) ? PyLong_AsLong(item) : -1; /* runs no code of anybody's */
        if (id < 0 || id >= (long)codec->id_count || *code_count > PY_SSIZE_T_MAX / 4) {
            PyErr_Clear();
            PyMem_Free(ids);
            return NULL;
        }
        ids[i] = (uint16_t)id;
        *code_count += length_of_id(codec, ids[i]);
    }
    return ids;
}

/* The base tokens of ids, `count` in all, and an END behind them. NULL where memory has run out. */
static uint16_t *expand(const Codec *codec, const uint16_t *ids, Py_ssize_t id_count, size_t count) {
    uint16_t *codes = count < PY_SSIZE_T_MAX / 4 ? PyMem_Malloc((count + SPARE) * sizeof *codes) : NULL;
    uint16_t *out = codes;
    if (codes == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < id_count; i++) {
        const uint16_t *in = codec->expansions + codec->expansion_at[ids[i]];
        size_t length = length_of_id(codec, ids[i]);
        memcpy(out, in, SPARE * sizeof *out); /* most are no longer: a copy of fixed size is quicker */
        if (length > SPARE) memcpy(out, in, length * sizeof *out);
        out += length;
    }
    *out = END;
    return codes;
}

/* (JSON text, ids consumed, ids given); NULL to give up. */
static PyObject *read_document(Reader *reader, const uint16_t *ids, Py_ssize_t id_count) {
    if (read_value(reader, reader->codec->nodes, 1) == 0) return NULL;
    Py_ssize_t consumed = 0;
    size_t place = 0;
    while (place < reader->at) place += length_of_id(reader->codec, ids[consumed++]);
    if (place != reader->at) return NULL; /* a token reaches beyond the end of the document */
    PyObject *text = PyUnicode_FromStringAndSize(reader->json, (Py_ssize_t)reader->used);
    if (text == NULL) PyErr_Clear(); /* not UTF-8 */
    return text ? Py_BuildValue("(Nnn)", text, consumed, id_count) : NULL;
}

static PyObject *codec_decode(PyObject *self, PyObject *given) {
    Reader reader = {.codec = (const Codec *)self};
    Py_ssize_t id_count = PyList_Check(given) ? PyList_Size(given) : PyTuple_Check(given) ? PyTuple_Size(given) : 0;
    uint16_t *ids = id_count > 0 ? ids_in(reader.codec, given, id_count, &reader.count) : NULL;
    uint16_t *codes = ids ? expand(reader.codec, ids, id_count, reader.count) : NULL;
    reader.codes = codes;
    PyObject *result = codes ? read_document(&reader, ids, id_count) : NULL;
    PyMem_Free(ids);
    PyMem_Free(codes);
    PyMem_Free(reader.json);
    PyMem_Free(reader.seen.items);
    return result || PyErr_Occurred() ? result : Py_NewRef(Py_None);
}

/* ---- making a codec of the numbers that native.py has written ---- */

typedef struct {
    Codec *codec;
    const unsigned char *at;
    size_t left; /* numbers, of 64 bits each */
    jmp_buf way_out; /* of everything here, where a number is out of range or memory runs out */
} Loader;

static uint64_t take(Loader *loader, uint64_t largest) {
    uint64_t number = 0;
    if (loader->left == 0) longjmp(loader->way_out, 1);
    memcpy(&number, loader->at, sizeof number);
    loader->at += sizeof number;
    loader->left--;
    if (number > largest) longjmp(loader->way_out, 1);
    return number;
}

static uint64_t take_any(Loader *loader) { return take(loader, UINT64_MAX); }

static uint32_t take_count(Loader *loader) { /* of what takes a number each at least */
    return (uint32_t)take(loader, loader->left < UINT32_MAX / 64 ? loader->left : UINT32_MAX / 64);
}

static uint32_t take_index(Loader *loader, uint32_t count) {
    uint32_t index = (uint32_t)take(loader, count);
    if (index == count) longjmp(loader->way_out, 1);
    return index;
}

static void *allocate(Loader *loader, size_t count, size_t size) { /* zeros, which are freed with the codec */
    Block *block = count < PY_SSIZE_T_MAX / 2 / size ? PyMem_Calloc(1, sizeof *block + count * size) : NULL;
    if (block == NULL) {
        PyErr_NoMemory();
        longjmp(loader->way_out, 1);
    }
    block->next = loader->codec->blocks;
    loader->codec->blocks = block;
    return block + 1;
}

static void load_literal(Loader *loader, Literal *literal) {
    literal->length = take_count(loader);
    uint16_t *codes = allocate(loader, literal->length, sizeof *codes);
    char *quoted = allocate(loader, 6 * literal->length + 2, 1);
    literal->codes = codes;
    literal->quoted = quoted;
    *quoted++ = '"';
    for (size_t i = 0; i < literal->length; i++) {
        codes[i] = (uint16_t)take(loader, 255);
        quoted = write_byte(quoted, (uint8_t)codes[i]);
    }
    *quoted++ = '"';
    literal->quoted_length = (size_t)(quoted - literal->quoted);
    literal->hash = hash_of(codes, literal->length);
}

static void load_automaton(Loader *loader, Automaton *automaton) {
    uint32_t states = automaton->state_count = (uint32_t)take(loader, UINT16_MAX - 1);
    uint32_t classes = automaton->class_count = (uint32_t)take(loader, 256);
    uint8_t *class_of = allocate(loader, 256, 1), *accepting = allocate(loader, states, 1);
    uint16_t *following = allocate(loader, (size_t)states * classes, sizeof *following);
    for (int byte = 0; byte < 256 && states; byte++) class_of[byte] = (uint8_t)take_index(loader, classes);
    for (uint32_t state = 0, at = 0; state < states; state++) {
        accepting[state] = (uint8_t)take(loader, 1);
        for (uint32_t i = 0; i < classes; i++) following[at++] = (uint16_t)take(loader, states);
    }
    automaton->classes = class_of;
    automaton->accepting = accepting;
    automaton->following = following;
}

static Form *load_forms(Loader *loader, const Automaton *automata, uint32_t *count) {
    *count = take_count(loader);
    Form *forms = allocate(loader, *count, sizeof *forms);
    for (uint32_t i = 0; i < *count; i++) {
        forms[i].mask = take_any(loader);
        forms[i].automaton = &automata[take_index(loader, loader->codec->automaton_count)];
    }
    return forms;
}

static void prepare_names(Loader *loader, Names *names, uint32_t count) {
    uint32_t slots = 2;
    while (slots < 2 * count) slots *= 2;
    names->slots = allocate(loader, slots, sizeof *names->slots);
    names->slot_mask = slots - 1;
}

static void load_name(Loader *loader, Names *names, uint32_t index) {
    uint32_t literal = take_index(loader, loader->codec->literal_count);
    uint32_t at = loader->codec->literals[literal].hash;
    if (find_literal(loader->codec, names, literal) != NULL) longjmp(loader->way_out, 1);
    while (names->slots[at & names->slot_mask].literal_plus_1 != 0) at++;
    names->slots[at & names->slot_mask] = (NameSlot){literal + 1, index};
}

static void load_key(Loader *loader, const Node *node, Key *key) {
    uint64_t *masks = allocate(loader, node->shape_count, sizeof *masks);
    key->child = &loader->codec->nodes[take_index(loader, loader->codec->node_count)];
    for (uint32_t i = 0; i < node->shape_count; i++) masks[i] = take_any(loader);
    key->masks = masks;
}

static void load_arrays(Loader *loader, Node *node) {
    node->array_count = take_count(loader);
    node->arrays = allocate(loader, node->array_count, sizeof *node->arrays);
    for (uint32_t i = 0; i < node->array_count; i++) {
        ArrayShape *array = &node->arrays[i];
        array->mask = take_any(loader);
        array->minimum = take_any(loader);
        array->maximum = take_any(loader);
        array->item_mask = take_any(loader);
    }
    if (node->array_count != 0) node->item = &loader->codec->nodes[take_index(loader, loader->codec->node_count)];
}

static void load_objects(Loader *loader, const Automaton *automata, Node *node) {
    uint32_t known_count = (uint32_t)take(loader, MAX_KNOWN);
    node->known_words = (known_count + 63) / 64;
    node->shape_count = take_count(loader);
    node->shapes = allocate(loader, node->shape_count, sizeof *node->shapes);
    for (uint32_t i = 0; i < node->shape_count; i++) {
        ObjectShape *shape = &node->shapes[i];
        shape->mask = take_any(loader);
        shape->minimum = take_any(loader);
        shape->maximum = take_any(loader);
        shape->required = allocate(loader, node->known_words, sizeof *shape->required);
        for (uint32_t left = take_count(loader); left > 0; left--) {
            uint32_t index = take_index(loader, known_count);
            shape->required[index / 64] |= (uint64_t)1 << (index % 64);
        }
    }
    node->keys = allocate(loader, known_count, sizeof *node->keys);
    prepare_names(loader, &node->known, known_count);
    for (uint32_t i = 0; i < known_count; i++) {
        load_name(loader, &node->known, i);
        load_key(loader, node, &node->keys[i]);
    }
    node->patterns = load_forms(loader, automata, &node->pattern_count);
    node->free_count = take_count(loader);
    node->free_keys = allocate(loader, node->free_count, sizeof *node->free_keys);
    for (uint32_t i = 0; i < node->free_count; i++) {
        node->free_keys[i].matched = take_any(loader);
        load_key(loader, node, &node->free_keys[i].key);
    }
}

static void load_node(Loader *loader, const Automaton *automata, Node *node) {
    node->opens = (int)take(loader, 1);
    node->has_texts = (int)take(loader, 1);
    node->null_mask = take_any(loader);
    node->true_mask = take_any(loader);
    node->false_mask = take_any(loader);
    node->any_text = take_any(loader);
    node->forms = load_forms(loader, automata, &node->form_count);
    node->numbers = load_forms(loader, automata, &node->number_count);
    uint32_t member_count = take_count(loader);
    node->member_masks = allocate(loader, member_count, sizeof *node->member_masks);
    prepare_names(loader, &node->members, member_count);
    for (uint32_t i = 0; i < member_count; i++) {
        load_name(loader, &node->members, i);
        node->member_masks[i] = take_any(loader);
    }
    load_arrays(loader, node);
    load_objects(loader, automata, node);
}

static void grow_edges(Loader *loader) { /* twice the slots; the old table is freed with the codec */
    Codec *codec = loader->codec;
    const Edge *old = codec->edges;
    size_t slots = (size_t)1 << (32 - codec->edge_shift);
    codec->edges = allocate(loader, 2 * slots, sizeof *old);
    codec->edge_shift--;
    for (size_t i = 0; i < slots; i++) {
        if (old[i].from != 0) *find_edge(codec, old[i].from, old[i].code) = old[i];
    }
}

static void add_token(Loader *loader, uint32_t id) {
    Codec *codec = loader->codec;
    const uint16_t *codes = codec->expansions + codec->expansion_at[id];
    uint32_t length = codec->expansion_at[id + 1] - codec->expansion_at[id];
    uint32_t *state = &codec->first_state[codes[0]];
    for (uint32_t i = 1; i < length; i++) {
        uint32_t from = *state ? *state : (*state = ++codec->state_count);
        if (2 * (codec->edge_count + 1) > (uint32_t)1 << (32 - codec->edge_shift)) grow_edges(loader);
        Edge *edge = find_edge(codec, from, codes[i]);
        codec->edge_count += edge->from == 0;
        edge->from = from;
        edge->code = codes[i];
        if (i == length - 1) edge->token = (uint16_t)id;
        state = &edge->to;
    }
}

static void load_vocabulary(Loader *loader) {
    Codec *codec = loader->codec;
    uint32_t base_size = codec->base_size, id_count = base_size + (uint32_t)take(loader, MAX_IDS - base_size);
    uint32_t code_count = base_size + take_count(loader); /* of all ids */
    codec->expansions = allocate(loader, (size_t)code_count + SPARE, sizeof *codec->expansions);
    codec->expansion_at = allocate(loader, (size_t)id_count + 1, sizeof *codec->expansion_at);
    codec->first_state = allocate(loader, base_size, sizeof *codec->first_state);
    codec->edge_shift = 20;
    codec->edges = allocate(loader, (size_t)1 << (32 - codec->edge_shift), sizeof *codec->edges);
    uint32_t at = 0;
    for (uint32_t id = 0; id < id_count; id++) {
        uint32_t length = id < base_size ? 1 : (uint32_t)take(loader, code_count - at);
        for (uint32_t i = 0; i < length; i++) {
            codec->expansions[at++] = (uint16_t)(id < base_size ? id : take_index(loader, base_size));
        }
        codec->expansion_at[id + 1] = at;
        if (length == 0) longjmp(loader->way_out, 1);
        add_token(loader, id);
    }
    codec->numbers = allocate(loader, id_count, sizeof *codec->numbers);
    codec->id_count = id_count;
    for (uint32_t id = 0; id < id_count; id++) {
        codec->numbers[id] = PyLong_FromUnsignedLong(id);
        if (codec->numbers[id] == NULL) longjmp(loader->way_out, 1);
    }
}

static int load(Loader *loader) { /* 0: not all is there; an exception only where memory has run out */
    if (setjmp(loader->way_out) != 0) return 0;
    Codec *codec = loader->codec;
    codec->literal_count = (uint32_t)take(loader, MAX_CODES - FIRST_LITERAL);
    codec->automaton_count = take_count(loader);
    codec->node_count = take_count(loader);
    codec->base_size = FIRST_LITERAL + codec->literal_count;
    if (codec->node_count == 0) longjmp(loader->way_out, 1);
    codec->literals = allocate(loader, codec->literal_count, sizeof *codec->literals);
    codec->nodes = allocate(loader, codec->node_count, sizeof *codec->nodes);
    Automaton *automata = allocate(loader, codec->automaton_count, sizeof *automata);
    for (uint32_t i = 0; i < codec->literal_count; i++) load_literal(loader, &codec->literals[i]);
    for (uint32_t i = 0; i < codec->automaton_count; i++) load_automaton(loader, &automata[i]);
    for (uint32_t i = 0; i < codec->node_count; i++) load_node(loader, automata, &codec->nodes[i]);
    load_vocabulary(loader);
    return loader->left == 0;
}

static PyObject *codec_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *numbers; /* no "y#": built with Python 3.13, that would not run with 3.12 */
    char *bytes;
    Py_ssize_t length;
    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "S:Codec", &numbers)) return NULL;
    if (PyBytes_AsStringAndSize(numbers, &bytes, &length) < 0) return NULL;
    allocfunc allocate_object = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate_object(type, 0);
    Loader loader;
    loader.codec = (Codec *)self;
    loader.at = (const unsigned char *)bytes;
    loader.left = (size_t)length / sizeof(uint64_t);
    if (self != NULL && !load(&loader)) {
        Py_CLEAR(self);
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "not a grammar and vocabulary for this codec");
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
