/* The tokenizer's engine: one machine that walks a grammar, and everything that is a use of it.

   A document is a sequence of base tokens, here called codes: 0 to 255 are the bytes of texts, then come padding, the
   structure below, and literals (known keys and members of enumerations). How a value is written depends on its node
   alone: null, true, false and members of enumerations are one code each; a text is its bytes and END; a number its
   JSON text and END; an array its items and ARRAY_END; an object its fields and OBJECT_END, where a field is its key (a
   literal, or bytes and END) and its value. NUMBER, ARRAY and OBJECT open a value only where the node allows other
   kinds too. What engine.py says of a grammar is loaded by `load` below.

   The machine is a pushdown automaton over frames: a value that is about to begin, an open array, object, text, number,
   or key. It moves by one code at a time (`step`), and refuses a code that no valid document has in its position; so
   every state of it can be completed. Writing (JSON text to codes), reading (codes to JSON text), completing, and
   finding out which tokens are legal (masks) are uses of it. A document's nesting never uses the C stack.

   Documents, ids and vocabulary files come from strangers: every read is bounded, memory grows with the input only, and
   what is remembered between documents is bounded too. Where memory runs out, the function of the interface that was
   called returns NO_MEMORY. Callers hold Python's lock, so nothing here runs twice at a time. */

#include <locale.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef ENGINE_VERSION
#define ENGINE_VERSION "" /* the SHA-256 of this file, so that engine.py refuses a library of another version */
#endif
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { END = 257, OBJECT, OBJECT_END, ARRAY, ARRAY_END, NUMBER, NULL_VALUE, TRUE_VALUE, FALSE_VALUE, FIRST_LITERAL };
enum {
    MAX_DEPTH = 128, /* levels of arrays and objects in a document */
    MAX_CODES = 0xD800,
    MAX_KNOWN = 1 << 14, /* keys that one node knows */
    MAX_TOKEN = 160,     /* codes */
    SPARE_JSON = 16,     /* bytes: a copy of fixed size is quicker */
    MAX_INTEGER_DIGITS = 309,
    MAX_MASK_BYTES = 1 << 26, /* of all remembered masks together, and of the facts about frames */
};
enum { FAILED = 0, DONE = 1, OPEN = 2, NO_MEMORY = -1 };
#define UNBOUNDED UINT64_MAX
#define INFINITE ((uint64_t)1 << 40) /* the cost of what has no end */

/* ---- memory ---- */

static jmp_buf *way_out; /* of the function of the interface that is at work, where memory has run out */

#define GUARD(result)                                                                                                \
    jmp_buf here;                                                                                                    \
    way_out = &here;                                                                                                 \
    if (setjmp(here) != 0) return result

static void *allocate(size_t count, size_t size) { /* zeros */
    void *memory = count < SIZE_MAX / 4 / size ? calloc(count ? count : 1, size) : NULL;
    if (memory == NULL) longjmp(*way_out, 1);
    return memory;
}

/* A growing array of some type: Codes codes = {0}; *push(&codes) = 3; */
#define VECTOR(type)                                                                                                 \
    struct {                                                                                                         \
        type *items;                                                                                                 \
        size_t count, capacity;                                                                                      \
    }
#define reserve(vector, more) /* there is memory in any case, even for none */                                          \
    ((vector)->capacity - (vector)->count > (more) ? (void)0                                                           \
     : reserve_items((void **)&(vector)->items, &(vector)->capacity, (vector)->count, more, sizeof *(vector)->items))
#define push(vector) (reserve(vector, 1), &(vector)->items[(vector)->count++])
#define append(vector, from, number) append_items((void **)&(vector)->items, &(vector)->capacity, &(vector)->count,    \
                                                  from, number, sizeof *(vector)->items)
#define copy_vector(to, from) ((to)->count = 0, append(to, (from)->items, (from)->count))

static void reserve_items(void **items, size_t *capacity, size_t count, size_t more, size_t size) {
    size_t larger = count + more + *capacity / 2 + 8;
    void *moved = more < SIZE_MAX / 8 / size && larger < SIZE_MAX / 4 / size ? realloc(*items, larger * size) : NULL;
    if (moved == NULL) longjmp(*way_out, 1);
    *items = moved;
    *capacity = larger;
}

static inline void append_items(void **items, size_t *capacity, size_t *count, const void *from, size_t more, size_t size) {
    if (more == 0) return;
    if (*capacity - *count < more) reserve_items(items, capacity, *count, more, size);
    memcpy((char *)*items + *count * size, from, more * size);
    *count += more;
}

typedef VECTOR(uint16_t) Codes;
typedef VECTOR(uint8_t) Bytes;
typedef VECTOR(uint32_t) Numbers;
typedef VECTOR(uint64_t) Words;

static uint64_t hash_of(const void *memory, size_t length) { /* eight bytes at a time, then mixed as in MurmurHash */
    const uint8_t *bytes = memory;
    uint64_t hash = 0x9E3779B97F4A7C15u ^ length, word;
    for (; length >= 8; length -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    word = 0;
    if (length) memcpy(&word, bytes, length);
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;
    return hash ^ hash >> 29;
}

/* A hash table from strings of bytes to numbers. */
typedef struct {
    uint64_t hash;
    size_t start, length; /* of the key */
    uint32_t value;       /* 0: a free slot */
} Slot;
typedef struct {
    Slot *slots;
    size_t capacity, count;
    Bytes keys;
} Map;

static Slot *find_slot(const Map *map, uint64_t hash, const void *key, size_t length) {
    for (size_t at = hash;; at++) { /* at least half of the slots are free */
        Slot *slot = &map->slots[at & (map->capacity - 1)];
        if (slot->value == 0) return slot;
        if (slot->hash == hash && slot->length == length && (length == 0 || !memcmp(map->keys.items + slot->start, key, length))) {
            return slot;
        }
    }
}

/* The place of a key's value, which is 0 where the key is new; the caller sets it at once. */
static uint32_t *map_value(Map *map, const void *key, size_t length) {
    uint64_t hash = hash_of(key, length);
    if (map->capacity == 0 || 2 * map->count >= map->capacity) {
        Map larger = {.capacity = map->capacity ? 2 * map->capacity : 64, .keys = map->keys};
        larger.slots = allocate(larger.capacity, sizeof *larger.slots);
        for (size_t i = 0; i < map->capacity; i++) {
            size_t at = map->slots[i].hash;
            if (map->slots[i].value == 0) continue;
            while (larger.slots[at & (larger.capacity - 1)].value != 0) at++;
            larger.slots[at & (larger.capacity - 1)] = map->slots[i];
        }
        free(map->slots);
        larger.count = map->count;
        *map = larger;
    }
    Slot *slot = find_slot(map, hash, key, length);
    if (slot->value == 0) {
        size_t start = map->keys.count;
        append(&map->keys, (const uint8_t *)key, length);
        *slot = (Slot){hash, start, length, 0};
        map->count++;
    }
    return &slot->value;
}

static uint32_t map_get(const Map *map, const void *key, size_t length) {
    return map->capacity ? find_slot(map, hash_of(key, length), key, length)->value : 0;
}

static void free_map(Map *map) {
    free(map->slots);
    free(map->keys.items);
    *map = (Map){0};
}

static void set_bit(uint64_t *bits, uint32_t index) { bits[index / 64] |= (uint64_t)1 << index % 64; }
static int bit_of(const uint64_t *bits, uint32_t index) { return bits[index / 64] >> index % 64 & 1; }

/* ---- the grammar ---- */

/* A bit for each alternative of a node. */
typedef uint64_t Mask __attribute__((vector_size(64), aligned(8)));
enum { MAX_ALTERNATIVES = 512, MAX_CALL_DEPTH = 4 /* of one automaton */ };

static inline int any(Mask mask) {
    return (mask[0] | mask[1] | mask[2] | mask[3] | mask[4] | mask[5] | mask[6] | mask[7]) != 0;
}
static inline int has(const Mask *mask, uint32_t index) { return (*mask)[index / 64] >> (index % 64) & 1; }
static inline void add(Mask *mask, uint32_t index) { (*mask)[index / 64] |= (uint64_t)1 << (index % 64); }
static inline Mask only(uint32_t index) {
    Mask mask = {0};
    add(&mask, index);
    return mask;
}

typedef struct {
    uint32_t callee, return_state;
} Call; /* which reads no byte itself: the callee reads it from its state 0 on */

typedef struct {
    uint32_t state_count, class_count, call_count;
    uint8_t classes[256];      /* bytes that lead to the same states from everywhere are one class */
    uint8_t order[256];        /* the first byte of each class, letters first: completions look like words */
    const uint16_t *following; /* after state * class_count + class; 0: nothing, up to state_count: the next state's
                                  number + 1, beyond: the number of a call + state_count + 1 */
    const Call *calls;
    const uint8_t *accepting[2]; /* states; [1]: in strict mode, as everywhere */
    const uint8_t *plain;        /* as which bytes do not leave a state: BY_AUTOMATON, ASCII_BUT_DOLLARS or ALL_ASCII */
    const uint8_t *is_lenient;   /* states that strict mode does not enter */
    const uint64_t *requires;    /* kinds of names of which strict mode needs some in scope before it enters a state */
    const uint8_t *plenty; /* more strings lead from the state to acceptance than a document can have */
    const uint32_t *room;  /* bytes that lead from the state to one without plenty; UINT32_MAX: there is none */
    uint32_t longest_run;  /* of bytes of a token that some states can read; 0: all states have plenty */
    const uint32_t *alike; /* the first state to which tokens do the same */
    uint32_t depth;              /* that a call adds; the depth of a stack is that of all automata in it */
    uint32_t row_count;          /* of distances: for so many depths that are left they differ */
    uint32_t *distance[2];       /* bytes of the shortest way to acceptance: [left * state_count + state] */
    uint32_t shape;             /* automata of the same shape differ in what they call */
    uint8_t *entry[2];          /* to states, far from all limits: never, always, or ask; [1]: in strict mode */
    uint32_t steady[2], farthest[2]; /* with so many levels of depth left distances are those of the last row; the largest */
    uint8_t is_total[2], is_shallow[2]; /* each state is always entered; no limit of depth is near outside calls */
    uint32_t names;             /* in strict mode only names of this kind, 0: no names */
} Automaton;
enum { FAR = 1 << 29 }; /* a distance that is infinite */
enum { NEVER, ALWAYS, ASK };

typedef struct {
    uint32_t alternative, automaton;
} Form; /* a text or number */

typedef struct Node Node;

typedef struct { /* what keys of any name, or texts, define */
    uint32_t kind;                    /* of names, 0: nothing */
    uint32_t is_unique, strict_unique; /* each name once: always, or in strict mode */
    uint32_t is_late;                 /* it counts from the end of the object that the text is in, or of the key's value, on */
    uint32_t opens;                   /* from then on all names of the kind are legal */
} Definition;

typedef struct {
    const Node *child;
    const Mask *masks; /* for each shape: the live alternatives of the child that it allows; none: not its key */
    int narrows;       /* the value decides between shapes, as one takes only a part of what the node allows */
    uint32_t literal;
} Key;

typedef struct {
    uint32_t automaton; /* of the names that match just these patterns */
    Key key;
} AdditionalKey;

typedef struct {
    uint32_t alternative;
    uint64_t minimum, maximum;
    Mask items;
} ArrayShape;

typedef struct {
    uint32_t alternative, required_count;
    uint64_t minimum, maximum;
    const uint32_t *required;      /* known keys, in the order in which a completion writes them */
    const uint64_t *required_bits; /* the same */
} ObjectShape;

typedef struct {
    uint32_t kind; /* NULL_VALUE to FALSE_VALUE, FIRST_LITERAL (a member of an enumeration), NUMBER, END (a text), ARRAY, OBJECT */
    uint32_t index; /* of its automaton, its first literal, or its shape */
} Alternative;

typedef struct {
    uint32_t literal_plus_1, index;
} NameSlot;

struct Node {
    uint32_t number, alternative_count;
    const Alternative *alternatives;
    uint64_t *costs; /* codes of the shortest value, for each alternative */
    int opens;       /* arrays, objects and numbers have an opening code here */
    Mask constants[3], live, lenient; /* live: some finite value belongs to it; lenient: off in strict mode */
    uint32_t text_count, number_count, array_count, shape_count, known_count, known_words, additional_count;
    const Form *texts, *numbers;
    const NameSlot *members, *known; /* hash tables: literals to the index of a mask or key */
    uint32_t member_slots, known_slots;
    const Mask *member_masks;
    const ArrayShape *arrays;
    int has_cases;      /* two different keys may differ in case only, which is not allowed */
    uint64_t *required; /* bits of known keys that some shape requires */
    uint64_t count_bound; /* from this length on, an array or object is like a longer one */
    const Node *item;
    const ObjectShape *shapes;
    const Key *keys;
    const AdditionalKey *additional;
    Definition defines_keys, defines_text;
    uint32_t implies; /* a kind of names: its members and known keys define some, see Implied */
    uint64_t scope, closes; /* bits of kinds: of names that are forgotten where it ends; that are not all legal from here on */
};

typedef struct { /* names that some text defines */
    int is_all; /* every name of the kind is legal from there on */
    uint32_t count;
    const struct Span {
        const uint8_t *bytes;
        uint32_t length;
    } *names;
} Implied;

typedef struct {
    const uint8_t *bytes;
    size_t length;
    uint8_t *quoted; /* as JSON, in quotes */
    size_t quoted_length;
} Literal;

typedef struct Trie Trie;
typedef struct Machine Machine;
typedef union Block { /* memory of a grammar, all freed together */
    union Block *next;
    long double alignment;
} Block;

/* What strings may do from one frame on; see "masks". */
typedef struct {
    Mask accepted;
    Numbers nodes; /* of the trie: there the frame has ended */
} Exit;
typedef struct {
    uint32_t node; /* of the trie: there a second key of the frame has been written */
    uint64_t hash; /* of the key */
    uint32_t kind; /* of names: it is no key, but a text that defines one; 0 */
    uint32_t start, first_length, length; /* of the bytes that a string begins with, and then the key's: in later_names */
} LaterKey;
typedef struct { /* of a text in a string; -1: before it, where the text on top of the machine begins */
    int32_t begin, end;
} Part;
typedef struct { /* strings below a node of the trie are legal only if a name in scope allows them */
    uint32_t node, kind, config;    /* config: which of those of the text on top has read them */
    uint32_t speller, state;        /* the automaton that reads the name, + 1, and its state at the node */
    uint32_t is_any;                /* any name that it can write will do */
    int32_t begin;                  /* of the name in the string; -1: before it, where that of the configuration begins */
    Part owner;                     /* the same; -1, both: the last name of the configuration */
    uint32_t own_start, own_count;  /* names that the string itself defines before */
    uint32_t is_need;
} Condition;
typedef struct {
    uint32_t index, node; /* of a known key, and of the trie */
} KnownKey;
typedef struct {
    uint64_t *inside;
    VECTOR(Exit) exits;
    VECTOR(KnownKey) known_keys; /* where strings write one of the frame: not where it has it already */
    VECTOR(LaterKey) later;
    Bytes later_names;
    VECTOR(Condition) conditions; /* about names in scope, whatever there are */
    VECTOR(Part) own;             /* names that strings define */
    Numbers barred;               /* nodes of the trie below which they allow none */
    uint64_t names_version;       /* with which that was found, 0: it must be found again each time */
    uint32_t is_volatile;         /* the facts hold for the present names only, as conditions cannot say what they need */
} Facts;

typedef struct {
    uint32_t node, state; /* of the trie, and of the automaton before the code of that node */
} Pause;
typedef struct { /* what strings do while one automaton reads them, from one of its states on */
    Numbers strings;  /* that end inside */
    uint64_t *inside; /* the same as bits, where all strings were read, and not those below some node of the trie */
    Numbers ends;     /* nodes of the trie that END leads to, where the text may end */
    VECTOR(Pause) pauses; /* where calls, returns or names decide */
} TextFacts;

typedef struct { /* an automaton at work in the text, number or key on top */
    uint32_t automaton, state;
    uint32_t stack; /* of calls; 0: empty */
    uint32_t units; /* UTF-16 units since the outermost call */
    uint32_t which; /* the alternative of a text or number, the index of a class of keys */
    uint32_t begin; /* strict mode: where what the automaton reads begins in the text; and the last name in it */
    uint32_t last_begin, last_end;
} Config;

typedef struct { /* a call that has not returned; stacks share their lower parts */
    uint32_t below, automaton, state;
    uint32_t depth; /* of all automata up to this one */
    uint32_t rest; /* bytes of the shortest way from all returns inside the outermost call to the end of that */
    uint32_t whole; /* and to the end of the text */
} StackNode;

/* As which tokens a text takes in bytes without changing its state: as none, as it is no text; as none; as those of ASCII
   without a dollar sign; of ASCII. And what tokens need: BYTES and STRUCTURE are taken in by no text so. */
enum { NOTHING, BY_AUTOMATON, ASCII_BUT_DOLLARS, ALL_ASCII, BYTES, STRUCTURE };

enum { MAX_LEVELS = 3 * MAX_TOKEN + 8 }; /* machines at work on the way to a node of the trie */

typedef struct {
    Block *blocks;
    Node *nodes;
    Automaton *automata;
    Literal *literals;
    uint32_t node_count, automaton_count, literal_count, base_size;
    uint32_t max_call_depth, max_call_units;
    int ignores_key_case, has_names;
    uint32_t owned_kind; /* of names that belong to a job */
    uint32_t graph_keys, graph_texts; /* kinds: of jobs, and of the names of jobs that they need; 0: none */
    uint64_t forward;                 /* bits of kinds whose names may be defined later: they are legal until some node closes them */
    uint32_t speller[64];             /* of names of a kind: an automaton that writes them, + 1 */
    uint32_t while_open[64];          /* of such a kind: while it is open, its names are those of another kind; 0: all are legal */
    Map implied_numbers;              /* a kind and a text to number + 1 */
    const Implied *implied;
    Map literal_numbers; /* text to number + 1 */
    const Trie *trie;
    /* what is remembered of masks: all is forgotten at once where it has become too much */
    Map frame_facts, text_facts, mask_parts, mask_contents;
    VECTOR(Facts) facts;
    VECTOR(TextFacts *) texts;
    VECTOR(uint64_t *) masks;
    VECTOR(uint8_t *) packed;
    uint32_t first_mask, generation; /* numbers of masks go on where memory has been given free */
    uint64_t remembered;
    uint8_t spread[256][8]; /* the bits of a byte, the lowest first */
    uint32_t ends_plus_1[2]; /* masks: nothing is legal; the end */
    Machine *walkers[MAX_LEVELS];
    Numbers marks; /* for each node of the trie: a place in what is being collected */
    /* of the function of the interface that is at work */
    Machine *machine, *machine2, *machine3;
    Codes codes;
    Bytes json, key;
    Numbers numbers;
    uint64_t error_at;
    uint64_t names_clock;
    Facts *explored;               /* masks: what is being found out; NULL: nothing */
    uint32_t reading, config;      /* the node of the trie and the configuration with which a text is being read there */
    int32_t text_start;            /* of that text in the string */
    uint32_t text_end;             /* where it has ended there, + 1 */
    size_t names_before;           /* those that the walker has defined come behind */
    uint32_t noted_kind;           /* and what it has defined last */
    Bytes noted;
    VECTOR(struct Span) spans;
} Engine;

static const NameSlot *find_literal(const NameSlot *slots, uint32_t slot_count, uint32_t literal) {
    if (slot_count == 0) return NULL;
    for (uint32_t at = literal * 0x9E3779B1u;; at++) { /* at least half of the slots are free */
        const NameSlot *slot = &slots[at & (slot_count - 1)];
        if (slot->literal_plus_1 == 0) return NULL;
        if (slot->literal_plus_1 == literal + 1) return slot;
    }
}

static const Key *find_known(const Node *node, uint32_t literal, uint32_t *index) {
    const NameSlot *slot = find_literal(node->known, node->known_slots, literal);
    if (slot == NULL) return NULL;
    *index = slot->index;
    return &node->keys[slot->index];
}

/* ---- the machine ---- */

enum { VALUE, SCALAR, ARRAY_FRAME, OBJECT_FRAME, KEY_FRAME };

typedef struct {
    uint32_t kind;
    uint32_t first_word, first_entry; /* of an object: where its bits of known keys and its other names begin */
    uint64_t length;                  /* items, or keys */
    const Node *node;
    const Key *key; /* of an object: the one whose value is being read */
    uint64_t open_kinds;              /* before it began, see Machine */
    uint32_t first_name;              /* of the names that were defined since it began */
    uint32_t around_count;            /* masks in Around */
    Mask alive;     /* alternatives that what was read so far leaves possible */
} Frame;

typedef struct { /* a key that is no known one, while its object is open; or a name that a document has defined */
    uint32_t start, length, frame;
    uint64_t hash;
} Entry;

typedef struct { /* that the document has defined */
    uint32_t kind, start, length; /* of its bytes in `known_bytes` */
    uint32_t owner_start, owner_length; /* of a name of the kind of outputs: the job's */
    uint64_t hash;
    uint32_t pending;             /* twice the number of the frame at whose end it counts, + 2; + 1: at the end of its value */
    uint32_t text_end;            /* masks: as in the engine when it was defined; 0: it is implied */
    uint32_t speller;             /* the automaton of its kind, + 1; 0: it cannot write the name */
} Name;

/* Documents are read in lenient mode, or in strict mode to find out whether it has no complaint. What is generated is in
   strict mode too, but uses no name before its definition, which may never come. A prompt is read in lenient mode; its
   names are kept for what is generated behind it. */
enum { LENIENT, STRICT, GENERATING, PROMPT };

/* The masks of what is around a frame, once it has ended: while it is open, that stays the same. */
enum { MAX_AROUND = 3 };
typedef struct {
    uint64_t names_version;
    uint32_t generation, mask[MAX_AROUND];
    Mask accepted[MAX_AROUND];
} Around;

struct Machine {
    Engine *engine;
    uint32_t has_loose_key; /* masks: the beginning of the key on top is not known, and it is compared with no other */
    uint32_t count, depth, is_closed;
    uint32_t mode;
    uint32_t missing_jobs;            /* that others need; and whether they need the one that is being read */
    uint32_t is_owner_needed;
    Mask accepted;      /* when it is closed: the alternatives of the document's node that accept it */
    uint32_t mask_plus_1, mask_generation;
    uint64_t fields;    /* keys whose value has begun */
    VECTOR(Config) configs;
    VECTOR(StackNode) stack;
    Words words;        /* bits of known keys of the objects that are open */
    Bytes names;        /* the bytes of all entries, and behind them those of the key on top so far */
    uint32_t partial;   /* where that begins */
    VECTOR(Entry) entries;
    Numbers slots;      /* a hash table of entries: their index + 1 */
    VECTOR(Name) known;  /* names that are in scope, or will be */
    Numbers name_slots;  /* a hash table of the unique ones, their place + 1, where there are many; some slots are out of date */
    size_t name_slots_used;
    Bytes known_bytes, implied_key;
    uint64_t open_kinds; /* bits of kinds of which every name is legal */
    uint64_t names_version;
    uint32_t owner_start, owner_length; /* of the job that is being read */
    VECTOR(Name) needs;  /* of jobs: a name and its owner */
    uint32_t at;         /* the place of the byte that is being read in the text on top */
    Bytes *json;        /* where what is read is written, if anywhere */
    size_t number_start;
    Frame frames[MAX_DEPTH + 3];
    Around around[MAX_DEPTH + 3];
};

static Frame *top_of(Machine *m) { return &m->frames[m->count - 1]; }
static inline int is_strict(const Machine *m) { return m->mode == STRICT || m->mode == GENERATING; }

static Machine *new_machine(Engine *engine) {
    Machine *m = allocate(1, sizeof *m);
    m->engine = engine;
    return m;
}

static void free_machine(Machine *m) {
    if (m == NULL) return;
    free(m->configs.items);
    free(m->stack.items);
    free(m->words.items);
    free(m->names.items);
    free(m->entries.items);
    free(m->slots.items);
    free(m->known.items);
    free(m->known_bytes.items);
    free(m->name_slots.items);
    free(m->implied_key.items);
    free(m->needs.items);
    free(m);
}

static void copy_machine(Machine *to, const Machine *from) {
    to->engine = from->engine;
    to->count = from->count;
    to->depth = from->depth;
    to->mode = from->mode;
    to->missing_jobs = from->missing_jobs;
    to->is_owner_needed = from->is_owner_needed;
    to->has_loose_key = from->has_loose_key;
    to->is_closed = from->is_closed;
    to->accepted = from->accepted;
    to->mask_plus_1 = from->mask_plus_1;
    to->mask_generation = from->mask_generation;
    to->fields = from->fields;
    to->partial = from->partial;
    to->json = NULL;
    to->open_kinds = from->open_kinds;
    to->names_version = from->names_version;
    to->owner_start = from->owner_start;
    to->owner_length = from->owner_length;
    to->name_slots.count = 0; /* it is made again where it is needed */
    copy_vector(&to->known, &from->known);
    copy_vector(&to->known_bytes, &from->known_bytes);
    copy_vector(&to->needs, &from->needs);
    copy_vector(&to->configs, &from->configs);
    copy_vector(&to->stack, &from->stack);
    copy_vector(&to->words, &from->words);
    copy_vector(&to->names, &from->names);
    copy_vector(&to->entries, &from->entries);
    copy_vector(&to->slots, &from->slots);
    memcpy(to->frames, from->frames, from->count * sizeof *from->frames);
    for (uint32_t i = 0; i < from->count; i++) {
        if (from->frames[i].around_count != 0) to->around[i] = from->around[i];
    }
}

/* ---- JSON that is read ---- */

static const uint8_t escape_length[256] = { /* of a byte in a JSON text, less the byte itself */
    5, 5, 5, 5, 5, 5, 5, 5, 1, 1, 1, 5, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
    ['"'] = 1, ['\\'] = 1,
};

static uint8_t *write_byte(uint8_t *out, uint8_t byte) {
    static const char letters[] = "btn\0fr", digits[] = "0123456789abcdef"; /* of 8 to 13; 11 has none */
    if (escape_length[byte] != 0) *out++ = '\\';
    if (escape_length[byte] < 5) {
        *out++ = escape_length[byte] && byte < ' ' ? (uint8_t)letters[byte - 8] : byte;
        return out;
    }
    memcpy(out, "u00", 3);
    out[3] = (uint8_t)digits[byte >> 4];
    out[4] = (uint8_t)digits[byte & 15];
    return out + 5;
}

static inline void put_json(Machine *m, char character) {
    if (m->json != NULL) *push(m->json) = (uint8_t)character;
}

static void put_json_bytes(Machine *m, const uint16_t *codes, size_t length) {
    if (m->json == NULL) return;
    reserve(m->json, 6 * length);
    uint8_t *out = m->json->items + m->json->count;
    for (size_t i = 0; i < length;) {
        size_t start = i;
        while (i < length && !escape_length[codes[i]]) i++;
        for (size_t j = start; j < i; j++) *out++ = (uint8_t)codes[j];
        if (i < length) out = write_byte(out, (uint8_t)codes[i++]);
    }
    m->json->count = (size_t)(out - m->json->items);
}

/* A JSON number as Python writes the int or float that it stands for. Returns its length; 0: it is not finite, or too
   long an integer. */
static size_t number_as_python_writes_it(Bytes *text, size_t start) {
    char *in = (char *)text->items + start, buffer[40], digits[20];
    size_t length = text->count - start;
    size_t integer = strspn(in, "-0123456789");
    if (integer >= length) {
        if (length == 2 && memcmp(in, "-0", 2) == 0) {
            in[0] = '0';
            length = 1;
        }
        return length - (in[0] == '-') <= MAX_INTEGER_DIGITS ? length : 0;
    }
    char *point = strchr(in, '.'), *end;
    if (point != NULL) *point = *localeconv()->decimal_point;
    double value = strtod(in, &end);
    if (end != in + length || value - value != 0) return 0;
    for (int precision = 0; precision < 17; precision++) { /* the fewest digits that give the number back */
        snprintf(buffer, sizeof buffer, "%.*e", precision, value);
        if (strtod(buffer, NULL) == value) break;
    }
    int count = 0, exponent = atoi(strchr(buffer, 'e') + 1);
    for (char *at = buffer; *at != 'e'; at++) {
        if (*at >= '0' && *at <= '9') digits[count++] = *at;
    }
    while (count > 1 && digits[count - 1] == '0') count--;
    int places = exponent + 1, is_negative = buffer[0] == '-'; /* digits before the point */
    text->count = start;
    reserve(text, 64);
    char *out = (char *)text->items + start;
    if (is_negative) *out++ = '-';
    if (places > 16 || places <= -4) {
        *out++ = digits[0];
        if (count > 1) {
            *out++ = '.';
            memcpy(out, digits + 1, (size_t)count - 1);
            out += count - 1;
        }
        out += snprintf(out, 8, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        if (places <= 0) {
            memcpy(out, "0.0000", 6);
            out += 2 - places;
        }
        for (int i = 0; i < count || i < places + 1; i++) {
            if (i == places && places > 0) *out++ = '.';
            *out++ = i < count ? digits[i] : '0';
            if (places <= 0 && i == count - 1) break;
        }
    }
    *out = 0;
    return (size_t)(out - (char *)text->items) - start;
}

/* ---- names of keys ---- */

static inline uint8_t folded(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte | 32 : byte; }

static int same_name(const uint8_t *left, const uint8_t *right, size_t length, int ignores_case) {
    if (!ignores_case) return length == 0 || memcmp(left, right, length) == 0;
    for (size_t i = 0; i < length; i++) {
        if (folded(left[i]) != folded(right[i])) return 0;
    }
    return 1;
}

static uint64_t hash_of_name(const Engine *engine, const uint8_t *name, size_t length) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (engine->ignores_key_case ? folded(name[i]) : name[i])) * 1099511628211u;
    }
    return hash ^ hash >> 32;
}

static uint64_t in_frame(uint64_t hash, uint32_t frame) { return hash + frame * 0x9E3779B97F4A7C15u; }

/* Whether the object in a frame has such a key (among the known ones only where their case does not count). */
static int is_taken(const Machine *m, uint32_t frame, const uint8_t *name, size_t length) {
    if (m->slots.count == 0 || m->entries.count == 0) return 0;
    uint64_t hash = hash_of_name(m->engine, name, length);
    for (size_t at = in_frame(hash, frame);; at++) {
        uint32_t slot = m->slots.items[at & (m->slots.count - 1)];
        if (slot == 0) return 0;
        const Entry *entry = &m->entries.items[slot - 1];
        if (entry->hash == hash && entry->frame == frame && entry->length == length &&
            same_name(m->names.items + entry->start, name, length, m->engine->ignores_key_case)) {
            return 1;
        }
    }
}

static void fill_slot(Machine *m, uint32_t index) {
    size_t at = in_frame(m->entries.items[index].hash, m->entries.items[index].frame);
    while (m->slots.items[at & (m->slots.count - 1)] != 0) at++;
    m->slots.items[at & (m->slots.count - 1)] = index + 1;
}

/* Makes the bytes from `partial` on a name of the object in a frame. */
static void add_entry(Machine *m, uint32_t frame) {
    uint32_t length = (uint32_t)(m->names.count - m->partial);
    uint64_t hash = hash_of_name(m->engine, m->names.items + m->partial, length);
    *push(&m->entries) = (Entry){m->partial, length, frame, hash};
    m->partial = (uint32_t)m->names.count;
    if (2 * m->entries.count > m->slots.count) {
        size_t capacity = m->slots.count ? 2 * m->slots.count : 16;
        m->slots.count = 0;
        reserve(&m->slots, capacity);
        memset(m->slots.items, 0, capacity * sizeof *m->slots.items);
        m->slots.count = capacity;
        for (uint32_t i = 0; i < m->entries.count; i++) fill_slot(m, i);
    } else {
        fill_slot(m, (uint32_t)m->entries.count - 1);
    }
}

static void remove_entries(Machine *m, uint32_t first) { /* the last ones: what was put in later has gone before */
    while (m->entries.count > first) {
        const Entry *entry = &m->entries.items[--m->entries.count];
        size_t at = in_frame(entry->hash, entry->frame);
        while (m->slots.items[at & (m->slots.count - 1)] != m->entries.count + 1) at++;
        m->slots.items[at & (m->slots.count - 1)] = 0;
        m->names.count = m->partial = m->entries.items[m->entries.count].start;
    }
}

/* ---- names that a document defines (format 2) ---- */

static int is_same_span(const uint8_t *left, uint32_t left_length, const uint8_t *right, uint32_t right_length) {
    return left_length == right_length && (left_length == 0 || memcmp(left, right, left_length) == 0);
}

/* Whether a job, by its name, needs the one that is being read, by way of others or not. */
static int needs_owner(const Machine *m, const uint8_t *job, uint32_t length) {
    if (!m->is_owner_needed) return 0;
    const uint8_t *bytes = m->known_bytes.items;
    uint8_t *seen = allocate(m->needs.count, 1);
    Numbers waiting = {0}; /* places among the needs */
    int found = 0;
    for (size_t at = 0; at <= waiting.count && !found; at++) {
        const Name *reached = at > 0 ? &m->needs.items[waiting.items[at - 1]] : NULL;
        if (reached != NULL) {
            job = bytes + reached->start;
            length = reached->length;
        }
        found = is_same_span(job, length, bytes + m->owner_start, m->owner_length);
        for (uint32_t i = 0; i < m->needs.count && !found; i++) {
            const Name *need = &m->needs.items[i];
            if (seen[i] || need->kind != m->engine->graph_texts) continue;
            if (!is_same_span(job, length, bytes + need->owner_start, need->owner_length)) continue;
            seen[i] = 1;
            *push(&waiting) = i;
        }
    }
    free(waiting.items);
    free(seen);
    return found;
}

/* The kind of the names that are legal where a name of some kind is; 0: all are. */
static uint32_t kind_to_find(const Machine *m, uint32_t kind) {
    return m->open_kinds >> kind & 1 ? m->engine->while_open[kind] : kind;
}

static void touch_names(Machine *m) { m->names_version = ++m->engine->names_clock; }

static int can_spell(const Automaton *a, const uint8_t *name, uint32_t length) {
    uint32_t state = 0;
    for (uint32_t i = 0; i < length && !a->call_count; i++) {
        uint32_t next = a->following[state * a->class_count + a->classes[name[i]]];
        if (next == 0 || a->is_lenient[next - 1]) return 0;
        state = next - 1;
    }
    return a->call_count || (a->state_count && a->accepting[1][state]);
}

/* A name that must be in scope. */
typedef struct {
    uint32_t kind, length, owner_length;
    int is_whole; /* the text is all of it, else its beginning */
    int is_need;  /* it is a job that the one being read is to need: that one must not need it already */
    uint32_t speller; /* the automaton that must be able to write it, + 1 */
    const uint8_t *text, *owner;
} Wanted;

static int goes_on_as(const Machine *m, const Wanted *w, const uint8_t *name, uint32_t length) {
    if (length < w->length || (w->is_whole && length != w->length)) return 0;
    if (w->length && memcmp(name, w->text, w->length) != 0) return 0;
    return !w->is_need || !needs_owner(m, name, length);
}

static int is_spelled(const Machine *m, uint32_t speller, const uint8_t *name, uint32_t length) {
    return speller == 0 || can_spell(&m->engine->automata[speller - 1], name, length);
}

static int is_wanted(const Machine *m, const Name *name, const Wanted *w) {
    if (name->kind != w->kind || name->pending) return 0;
    if (!goes_on_as(m, w, m->known_bytes.items + name->start, name->length)) return 0;
    if (w->speller != name->speller && !is_spelled(m, w->speller, m->known_bytes.items + name->start, name->length)) return 0;
    return name->owner_length == 0 || is_same_span(m->known_bytes.items + name->owner_start, name->owner_length, w->owner, w->owner_length);
}

/* What an automaton that has read a name up to a place in the text wants. */
static Wanted wanted_by(Machine *m, const Config *c, uint32_t kind, uint32_t end) {
    const Engine *engine = m->engine;
    const uint8_t *text = m->names.items + m->partial;
    Wanted w = {.kind = kind, .length = end - c->begin, .speller = c->automaton + 1, .text = text + c->begin};
    if (kind == engine->owned_kind) {
        w.owner = text + c->last_begin;
        w.owner_length = c->last_end - c->last_begin;
    }
    w.is_need = kind == engine->graph_keys && top_of(m)->node->defines_text.kind == engine->graph_texts;
    return w;
}

static int is_in_scope(const Machine *m, const Wanted *w) {
    for (size_t i = 0; i < m->known.count; i++) {
        if (is_wanted(m, &m->known.items[i], w)) return 1;
    }
    return 0;
}

/* How many jobs others need that are not there; the first one is put into `name`. */
static uint32_t count_missing_jobs(const Machine *m, Name *name) {
    uint32_t missing = 0;
    for (size_t i = 0; i < m->needs.count; i++) {
        const Name *need = &m->needs.items[i];
        int is_there = need->kind != m->engine->graph_texts;
        for (size_t j = 0; j < m->needs.count && !is_there; j++) {
            const Name *other = &m->needs.items[j];
            is_there = (other->kind == m->engine->graph_keys || j < i) &&
                       is_same_span(m->known_bytes.items + need->start, need->length, m->known_bytes.items + other->start, other->length);
        }
        if (is_there) continue;
        if (missing++ == 0) *name = *need;
    }
    return missing;
}

static int notes_conditions(const Machine *m) { return m->engine->explored != NULL && !m->engine->explored->is_volatile; }

/* Notes what must be in scope for the strings below the node that is being read. */
static void note_condition(Machine *m, const Config *c, const Wanted *w, int is_any) {
    const Engine *engine = m->engine;
    Facts *facts = engine->explored;
    facts->is_volatile |= (w->is_need && m->owner_length) || (!is_any && engine->automata[w->speller - 1].call_count);
    Condition condition = {.node = engine->reading, .kind = w->kind, .config = engine->config, .speller = w->speller, .begin = -1};
    condition.own_start = (uint32_t)facts->own.count;
    for (size_t i = engine->names_before; i < m->known.count; i++) { /* names that the string itself defines may do */
        const Name *own = &m->known.items[i];
        if (own->kind != w->kind || own->pending) continue;
        int32_t end = (int32_t)own->text_end - 1, begin = end - (int32_t)own->length;
        facts->is_volatile |= own->text_end == 0 || (own->kind == engine->owned_kind && m->owner_length);
        *push(&facts->own) = (Part){begin < 0 ? -1 : begin, end};
    }
    condition.own_count = (uint32_t)facts->own.count - condition.own_start;
    size_t own_size = condition.own_count * sizeof *facts->own.items;
    if (condition.own_count && 2 * condition.own_count <= facts->own.count &&
        !memcmp(facts->own.items + condition.own_start, facts->own.items + condition.own_start - condition.own_count, own_size)) {
        facts->own.count -= condition.own_count; /* as for the last condition with some */
        condition.own_start -= condition.own_count;
    }
    condition.is_any = (uint32_t)is_any;
    condition.is_need = (uint32_t)w->is_need;
    if (!is_any) condition.state = c->state;
    if ((int32_t)c->begin + engine->text_start >= 0) condition.begin = (int32_t)c->begin + engine->text_start;
    if (w->owner_length) {
        int32_t begin = (int32_t)c->last_begin + engine->text_start, end = (int32_t)c->last_end + engine->text_start;
        condition.owner = (Part){begin < 0 ? -1 : begin, end < 0 ? -1 : end};
    }
    size_t count = facts->conditions.count;
    if (count && memcmp(&facts->conditions.items[count - 1], &condition, sizeof condition) == 0) return;
    *push(&facts->conditions) = condition;
}

/* Whether some name of a kind is in scope that an automaton can go on with, where it has read a name up to `end`. */
static int has_right_name(Machine *m, const Config *c, uint32_t end, int is_whole) {
    uint32_t kind = is_strict(m) ? m->engine->automata[c->automaton].names : 0;
    if (kind != 0) kind = kind_to_find(m, kind);
    if (kind == 0) return 1;
    Wanted w = wanted_by(m, c, kind, end);
    if (notes_conditions(m)) {
        if (w.length == 1 && !is_whole) note_condition(m, c, &w, 0);
        return 1;
    }
    w.is_whole = is_whole;
    if (is_whole) w.speller = 0;
    return is_in_scope(m, &w);
}

static int has_all_names(Machine *m, uint64_t kinds, const Config *c) {
    for (uint32_t kind = 1; kinds >> kind; kind++) {
        uint32_t found = kinds >> kind & 1 ? kind_to_find(m, kind) : 0;
        if (found == 0) continue;
        Wanted w = wanted_by(m, c, found, c->begin);
        w.speller = m->engine->speller[kind];
        if (!notes_conditions(m)) {
            if (!is_in_scope(m, &w)) return 0;
        } else if (m->engine->reading) {
            note_condition(m, c, &w, 1);
        } else {
            m->engine->explored->is_volatile = 1; /* a text that has not begun yet */
        }
    }
    return 1;
}

static int is_needed(const Machine *m) { /* the job that is being read */
    for (size_t i = 0; i < m->needs.count; i++) {
        const Name *need = &m->needs.items[i];
        const uint8_t *bytes = m->known_bytes.items;
        if (need->kind == m->engine->graph_texts && is_same_span(bytes + need->start, need->length, bytes + m->owner_start, m->owner_length)) {
            return 1;
        }
    }
    return 0;
}

/* Whether an expression can have such a name: keys may be any text. */
static int can_be_spelled(const Engine *engine, uint32_t kind, const uint8_t *text, uint32_t length) {
    return engine->speller[kind] != 0 && can_spell(&engine->automata[engine->speller[kind] - 1], text, length);
}

enum { MANY_NAMES = 32 };

static void put_name_slot(Machine *m, uint32_t place) {
    size_t at = m->known.items[place].hash;
    while (m->name_slots.items[at & (m->name_slots.count - 1)] != 0) at++;
    m->name_slots.items[at & (m->name_slots.count - 1)] = place + 1;
    m->name_slots_used++;
}

/* Whether a unique name of a kind is among those from a place on. */
static int is_defined(Machine *m, const Name *wanted, const uint8_t *text, size_t from) {
    int has_slots = from == 0 && m->known.count > MANY_NAMES;
    if (has_slots && (m->name_slots.count == 0 || 2 * m->name_slots_used >= m->name_slots.count)) {
        size_t capacity = 64;
        while (capacity < 4 * m->known.count) capacity *= 2;
        m->name_slots.count = m->name_slots_used = 0;
        reserve(&m->name_slots, capacity);
        memset(m->name_slots.items, 0, capacity * sizeof *m->name_slots.items);
        m->name_slots.count = capacity;
        for (uint32_t i = 0; i < m->known.count; i++) {
            if (m->known.items[i].hash != 0) put_name_slot(m, i);
        }
    }
    for (size_t at = has_slots ? wanted->hash : from; has_slots || at < m->known.count; at++) {
        size_t place = has_slots ? m->name_slots.items[at & (m->name_slots.count - 1)] : at + 1;
        if (place == 0) return 0;
        if (place > m->known.count) continue;
        const Name *name = &m->known.items[place - 1];
        if (name->kind != wanted->kind || name->hash != wanted->hash) continue;
        if (is_same_span(m->known_bytes.items + name->start, name->length, text, wanted->length)) return 1;
    }
    return 0;
}

/* Defines a name, whose bytes stand from `partial` on; 0: it must be another one. */
static int define(Machine *m, const Definition *definition, uint32_t frame, int is_key) {
    const uint8_t *text = m->names.items + m->partial;
    uint32_t length = (uint32_t)(m->names.count - m->partial), kind = definition->kind;
    int is_unique = definition->is_unique || (is_strict(m) && definition->strict_unique);
    int is_job = is_key && kind == m->engine->graph_keys, is_need = !is_key && kind == m->engine->graph_texts;
    if (m->mode == LENIENT && !is_unique && !is_job && !is_need) return 1;
    touch_names(m);
    if (definition->opens) {
        m->open_kinds |= (uint64_t)1 << kind;
        return 1;
    }
    uint64_t hash = is_unique || definition->strict_unique ? hash_of_name(m->engine, text, length) : 0;
    if (is_unique && m->engine->explored) { /* masks compare it with other names later */
        m->engine->noted_kind = m->has_loose_key ? 0 : kind;
        m->engine->noted.count = 0;
        append(&m->engine->noted, text, length);
        m->has_loose_key = 0;
    }
    Name name = {.kind = kind, .start = (uint32_t)m->known_bytes.count, .length = length, .hash = hash, .text_end = m->engine->text_end};
    if (is_unique && is_defined(m, &name, text, m->engine->explored ? m->engine->names_before : 0)) return 0;
    if (definition->is_late) name.pending = 2 * frame + 2 + (uint32_t)is_key;
    append(&m->known_bytes, text, length);
    if (is_job) {
        m->owner_start = name.start;
        m->owner_length = length;
    }
    if (kind == m->engine->owned_kind || is_need) {
        name.owner_start = m->owner_start;
        name.owner_length = m->owner_length;
    }
    if (is_need || is_job) *push(&m->needs) = name;
    if (is_need) name.owner_length = 0;
    int will_be_unique = definition->strict_unique && m->mode != LENIENT; /* behind a prompt */
    if (m->mode != LENIENT && can_be_spelled(m->engine, kind, text, length)) name.speller = m->engine->speller[kind];
    if (is_unique || will_be_unique || name.speller || m->engine->explored) { /* masks ask later whether it can be spelled */
        *push(&m->known) = name;
        if (hash != 0 && m->name_slots.count != 0) put_name_slot(m, (uint32_t)m->known.count - 1);
    }
    if (is_job && is_strict(m) && m->missing_jobs) {
        m->missing_jobs = count_missing_jobs(m, &name);
        m->is_owner_needed = is_needed(m);
    } else if (is_job) {
        m->is_owner_needed = 0;
    }
    return 1;
}

/* Defines what a member or known key of a node implies. */
static void imply(Machine *m, uint32_t kind, const uint8_t *text, size_t length) {
    Bytes *key = &m->implied_key;
    if (kind == 0 || m->mode == LENIENT) return;
    key->count = 0;
    append(key, (const uint8_t *)&kind, sizeof kind);
    append(key, text, length);
    uint32_t number = map_get(&m->engine->implied_numbers, key->items, key->count);
    if (number == 0) return;
    const Implied *implied = &m->engine->implied[number - 1];
    touch_names(m);
    if (implied->is_all) m->open_kinds |= (uint64_t)1 << kind;
    for (uint32_t i = 0; i < implied->count; i++) {
        struct Span span = implied->names[i];
        size_t at = 0;
        for (; at < m->known.count; at++) {
            const Name *name = &m->known.items[at];
            if (name->kind == kind && is_same_span(m->known_bytes.items + name->start, name->length, span.bytes, span.length)) break;
        }
        if (at < m->known.count) continue;
        *push(&m->known) = (Name){.kind = kind, .start = (uint32_t)m->known_bytes.count, .length = span.length};
        append(&m->known_bytes, span.bytes, span.length);
    }
}

static void open_names(Machine *m, Frame *f) { /* an array or object begins */
    if (!m->engine->has_names) return;
    uint64_t scope = f->node->scope;
    f->first_name = (uint32_t)m->known.count;
    f->open_kinds = m->open_kinds;
    m->open_kinds = ((m->open_kinds & ~scope) | (m->mode == STRICT ? m->engine->forward & scope : 0)) & ~f->node->closes;
    if (m->open_kinds != f->open_kinds) touch_names(m);
}

static void close_names(Machine *m, uint32_t frame) { /* it ends */
    const Frame *f = &m->frames[frame];
    if (!m->engine->has_names) return;
    size_t kept = f->first_name;
    uint64_t open_kinds = (m->open_kinds & ~f->node->scope) | (f->open_kinds & f->node->scope);
    int has_changed = open_kinds != m->open_kinds;
    for (size_t i = kept; i < m->known.count; i++) {
        Name name = m->known.items[i];
        if (f->node->scope >> name.kind & 1) continue;
        has_changed |= name.pending == 2 * frame + 2;
        if (name.pending == 2 * frame + 2) name.pending = 0;
        m->known.items[kept++] = name;
        if (kept <= i && m->name_slots.count != 0) m->name_slots.count = 0;
    }
    if (has_changed || kept != m->known.count) touch_names(m);
    m->known.count = kept;
    m->open_kinds = open_kinds;
}

static void finish_names(Machine *m, uint32_t frame) { /* the value of a key of this object has ended */
    if (!m->frames[frame].node->defines_keys.is_late) return;
    for (size_t i = 0; i < m->known.count; i++) {
        if (m->known.items[i].pending != 2 * frame + 3) continue;
        m->known.items[i].pending = 0;
        touch_names(m);
    }
}

/* ---- automata ---- */

static uint32_t distance(const Machine *m, uint32_t automaton, uint32_t state, uint32_t depth) {
    const Automaton *a = &m->engine->automata[automaton];
    if (depth > m->engine->max_call_depth) return FAR;
    uint32_t left = m->engine->max_call_depth - depth;
    return a->distance[is_strict(m)][(left < a->row_count ? left : a->row_count - 1) * a->state_count + state];
}

static uint32_t sum(uint32_t left, uint32_t right) { return left + right < FAR ? left + right : FAR; }

static uint32_t depth_of(const Machine *m, const Config *c) {
    return m->engine->automata[c->automaton].depth + (c->stack ? m->stack.items[c->stack].depth : 0);
}

/* Bytes of the shortest way to the end of the text; FAR: there is none within the limits of calls. */
static uint32_t distance_of(const Machine *m, const Config *c) {
    uint32_t here = distance(m, c->automaton, c->state, depth_of(m, c));
    if (c->stack == 0) return here;
    const StackNode *stack = &m->stack.items[c->stack];
    if (here + stack->rest + c->units > m->engine->max_call_units) return FAR;
    return sum(here, stack->whole);
}

/* Whether strict mode may be in a state, whatever its text. */
static int may_enter(Machine *m, const Config *c, uint32_t automaton, uint32_t state) {
    const Automaton *a = &m->engine->automata[automaton];
    if (!is_strict(m)) return 1;
    if (a->is_lenient[state]) return 0;
    if (a->requires[state] == 0 || (a->names && notes_conditions(m))) return 1; /* its names themselves are noted */
    return has_all_names(m, a->requires[state], c);
}

/* Goes back to the caller; 0: what was called cannot end here. `end`: a place in the text. */
static int return_from(Machine *m, Config *c, uint32_t end) {
    const Automaton *a = &m->engine->automata[c->automaton];
    if (c->stack == 0 || !a->accepting[is_strict(m)][c->state] || !has_right_name(m, c, end, 1)) return 0;
    if (m->mode != LENIENT && a->names) {
        c->last_begin = c->begin;
        c->last_end = end;
    }
    const StackNode *stack = &m->stack.items[c->stack];
    c->automaton = stack->automaton;
    c->state = stack->state;
    c->stack = stack->below;
    if (c->stack == 0) c->last_begin = c->last_end = 0;
    return 1;
}

static void call(Machine *m, Config *c, const Call *called) {
    uint32_t outer = depth_of(m, c), after = distance(m, c->automaton, called->return_state, outer);
    if (m->stack.count == 0) *push(&m->stack) = (StackNode){0}; /* number 0 stands for the empty stack */
    StackNode below = m->stack.items[c->stack];
    StackNode pushed = {c->stack, c->automaton, called->return_state, outer, 0, 0};
    pushed.rest = c->stack ? sum(below.rest, after) : 0;
    pushed.whole = c->stack ? sum(below.whole, after) : after;
    c->automaton = called->callee;
    c->state = 0;
    c->begin = m->mode != LENIENT ? m->at : 0;
    c->stack = (uint32_t)m->stack.count;
    *push(&m->stack) = pushed;
}

static uint32_t units_of(uint32_t byte) { return (byte & 0xC0) != 0x80 ? 1 + (byte >= 0xF0) : 0; } /* of UTF-16 */
static uint32_t units_in(const uint16_t *codes, size_t length) {
    uint32_t units = 0;
    for (size_t i = 0; i < length; i++) units += units_of(codes[i]);
    return units;
}

enum { MAX_CALLS = 64, MAX_SHORTEST = 1 << 16 }; /* calls at one byte; bytes of a shortest text */

/* Reads a byte, the one at m->at. A call returns where nothing else can be read. */
static int move(Machine *m, Config *c, uint32_t byte) {
    for (int calls = 0;;) {
        const Automaton *a = &m->engine->automata[c->automaton];
        uint32_t next = a->following[c->state * a->class_count + a->classes[byte]];
        const Call *called = next > a->state_count ? &a->calls[next - a->state_count - 1] : NULL;
        if (is_strict(m) && next != 0) { /* what strict mode does not enter is not there */
            int is_open = called ? may_enter(m, c, called->callee, 0) && may_enter(m, c, c->automaton, called->return_state)
                                 : may_enter(m, c, c->automaton, next - 1);
            if (!is_open) next = 0;
        }
        if (next == 0) {
            if (!return_from(m, c, m->at)) return 0;
        } else if (called != NULL) {
            if (++calls > MAX_CALLS) return 0;
            call(m, c, called);
        } else {
            c->state = next - 1;
            c->units = c->stack == 0 ? 0 : c->units + units_of(byte);
            return distance_of(m, c) < FAR && has_right_name(m, c, m->at + 1, 0);
        }
    }
}

static int accepts_end(Machine *m, const Config *config) { /* of the text, which ends at m->at */
    if (config->stack == 0 && !is_strict(m)) return m->engine->automata[config->automaton].accepting[0][config->state];
    Config c = *config;
    while (c.stack != 0) {
        if (!return_from(m, &c, m->at)) return 0;
    }
    return m->engine->automata[c.automaton].accepting[is_strict(m)][c.state] && has_right_name(m, &c, m->at, 1);
}

/* Whether no limit of calls is near, so that what an automaton reads does not depend on how much it has read. */
static inline int is_far_from_limits(const Machine *m, const Config *c) {
    const Automaton *a = &m->engine->automata[c->automaton];
    int mode = is_strict(m);
    if (c->stack == 0) return a->is_shallow[mode];
    const StackNode *call = &m->stack.items[c->stack];
    return call->depth + a->depth + a->steady[mode] <= m->engine->max_call_depth &&
           c->units + call->rest + a->farthest[mode] + 2 * MAX_TOKEN < m->engine->max_call_units;
}

/* How many codes are those of ASCII without a dollar sign. */
static size_t plain_codes(const uint16_t *codes, size_t length) {
    const uint64_t ones = 0x0001000100010001u;
    size_t at = 0;
    for (uint64_t four; at + 4 <= length; at += 4) {
        memcpy(&four, codes + at, sizeof four);
        if (four & 0xFF80 * ones) break;
        uint64_t others = four ^ '$' * ones; /* 0 where there is a dollar sign; below 128 everywhere */
        if (((others + 127 * ones) & 128 * ones) != 128 * ones) break;
    }
    while (at < length && codes[at] < 128 && codes[at] != '$') at++;
    return at;
}

static int is_known(const Engine *engine, const Node *node, const uint8_t *name, size_t length) {
    uint32_t index, literal = node->known_count ? map_get(&engine->literal_numbers, name, length) : 0;
    return literal != 0 && find_known(node, literal - 1, &index) != NULL;
}

/* Appends the rest of a name, the shortest one in scope, to `out`. */
static void shortest_name(Machine *m, const Config *c, Bytes *out) {
    const Name *best = NULL;
    Wanted w = wanted_by(m, c, kind_to_find(m, m->engine->automata[c->automaton].names), m->at);
    if (m->engine->explored) m->engine->explored->is_volatile = 1;
    for (size_t i = 0; i < m->known.count; i++) {
        const Name *name = &m->known.items[i];
        if ((best == NULL || name->length < best->length) && is_wanted(m, name, &w)) best = name;
    }
    if (best != NULL) append(out, m->known_bytes.items + best->start + w.length, best->length - w.length);
}

/* Appends the shortest (then smallest, letters first) end of a text from where an automaton stands to `out`. */
static void shortest_text(Machine *m, Config c, Bytes *out) {
    size_t names = m->names.count, start = out->count;
    uint32_t before = m->at;
    m->at = (uint32_t)(names - m->partial);
    while (!accepts_end(m, &c)) {
        const Automaton *a = &m->engine->automata[c.automaton];
        uint32_t best = FAR;
        Config best_config = c;
        uint8_t best_byte = 0;
        size_t from = out->count;
        if (is_strict(m) && a->names && kind_to_find(m, a->names)) shortest_name(m, &c, out);
        if (out->count > from) {
            append(&m->names, out->items + from, out->count - from);
            for (; from < out->count; from++, m->at++) {
                if (!move(m, &c, out->items[from])) break;
            }
            if (from == out->count) continue;
            break;
        }
        for (uint32_t i = 0; i < (c.stack || a->call_count ? 256 : a->class_count) && best > 0; i++) {
            uint32_t letter = i < 26 ? 'a' + i : i < 'a' + 26 ? i - 26 : i;
            Config next = c;
            uint8_t byte = c.stack || a->call_count ? (uint8_t)letter : a->order[i];
            *push(&m->names) = byte;
            uint32_t here = move(m, &next, byte) ? distance_of(m, &next) : FAR;
            m->names.count--;
            if (here >= best) continue;
            best = here;
            best_config = next;
            best_byte = byte;
        }
        if (best == FAR || out->count - start > MAX_SHORTEST) break;
        *push(out) = best_byte;
        *push(&m->names) = best_byte;
        m->at++;
        c = best_config;
    }
    m->at = before;
    m->names.count = names;
}

static int must_be_unique(const Machine *m, const Definition *definition) {
    return definition->kind && (definition->is_unique || (is_strict(m) && definition->strict_unique));
}

/* Whether a text, of which the first bytes stand from `partial` on, is a name that must be another one. */
static int is_used_up(const Machine *m, const Definition *definition, const Bytes *rest, size_t from) {
    size_t first = m->names.count - m->partial, length = first + rest->count - from;
    for (size_t i = 0; i < m->known.count; i++) {
        const Name *name = &m->known.items[i];
        const uint8_t *bytes = m->known_bytes.items + name->start;
        if (name->kind != definition->kind || name->length != length) continue;
        if (first && memcmp(bytes, m->names.items + m->partial, first) != 0) continue;
        if (length == first || memcmp(bytes + first, rest->items + from, length - first) == 0) return 1;
    }
    return 0;
}

/* Texts that are not wanted: names of a kind that stand already, or (definition: NULL) the keys of an object. */
typedef struct {
    const Definition *definition;
    uint32_t frame;
} Unwanted;

static int is_unwanted(const Machine *m, const Unwanted *unwanted, const Bytes *rest, size_t from) {
    if (unwanted->definition) return is_used_up(m, unwanted->definition, rest, from);
    Bytes key = {0};
    append(&key, m->names.items + m->partial, m->names.count - m->partial);
    append(&key, rest->items + from, rest->count - from);
    int is_there = is_taken(m, unwanted->frame, key.items, key.count) ||
                   is_known(m->engine, m->frames[unwanted->frame].node, key.items, key.count);
    free(key.items);
    return is_there;
}

/* Appends the end of a text that goes on behind the shortest one, which is not wanted. Returns whether there is one. */
static int longer_text(Machine *m, Config c, const Unwanted *unwanted, Bytes *out) {
    size_t from = out->count, names = m->names.count;
    Bytes text = {0};
    shortest_text(m, c, &text);
    for (size_t written = 0;;) { /* `text` is read, then each byte that may follow is tried */
        for (; written < text.count; written++) {
            m->at = (uint32_t)(m->names.count - m->partial);
            *push(&m->names) = text.items[written];
            if (!move(m, &c, text.items[written])) break;
        }
        size_t read = m->names.count;
        int follows = -1;
        out->count = from;
        if (written < text.count) break;
        for (uint32_t i = 0; i < 256 && out->count == from; i++) {
            uint32_t byte = i < 26 ? 'a' + i : i < 'a' + 26 ? i - 26 : i;
            Config next = c;
            m->at = (uint32_t)(m->names.count - m->partial);
            *push(&m->names) = (uint8_t)byte;
            int moves = move(m, &next, byte);
            if (moves && follows < 0) follows = (int)byte;
            if (moves) {
                append(out, text.items, text.count);
                *push(out) = (uint8_t)byte;
                shortest_text(m, next, out);
            }
            m->names.count = names;
            if (moves && is_unwanted(m, unwanted, out, from)) out->count = from;
            m->names.count = read;
        }
        if (out->count > from || follows < 0) break;
        *push(&text) = (uint8_t)follows;
    }
    m->names.count = names;
    free(text.items);
    return out->count > from;
}

/* As shortest_text, but a name that must be unique is another one than those that are there. */
static void shortest_new_text(Machine *m, Config c, const Definition *definition, Bytes *out) {
    size_t from = out->count;
    shortest_text(m, c, out);
    if (!must_be_unique(m, definition) || !is_used_up(m, definition, out, from)) return;
    out->count = from;
    longer_text(m, c, &(Unwanted){.definition = definition}, out);
}

typedef struct {
    uint32_t state, before;
    uint8_t byte;
} Spelled;

/* Whether some key that the object in a frame has not and does not know goes on from here; its rest, the shortest
   one, is appended to `out` (NULL: not needed). `partial` and what follows are the key's bytes so far. */
static int spell(Machine *m, uint32_t frame, const Config *c, Bytes *out) {
    const Automaton *a = &m->engine->automata[c->automaton];
    if (a->state_count == 0) return 0;
    if (out == NULL && (a->plenty[c->state] || c->stack || a->call_count)) return 1;
    const Node *node = m->frames[frame].node;
    Bytes text = {0};
    size_t prefix = m->names.count - m->partial, excluded = m->entries.count + node->known_count + 1;
    append(&text, m->names.items + m->partial, prefix);
    shortest_text(m, *c, &text);
    int found = !is_taken(m, frame, text.items, text.count) && !is_known(m->engine, node, text.items, text.count);
    VECTOR(Spelled) nodes = {0}; /* breadth first; a state need be kept once more than there are exclusions */
    uint32_t *seen = found ? NULL : allocate(a->state_count, sizeof *seen);
    if (!found && c->stack == 0) *push(&nodes) = (Spelled){c->state, 0, 0};
    if (!found && c->stack != 0) { /* inside an expression, behind which a text may go on */
        text.count = prefix;
        found = longer_text(m, *c, &(Unwanted){.frame = frame}, &text);
    }
    for (size_t at = 0; at < nodes.count && !found; at++) {
        Spelled here = nodes.items[at];
        if (a->accepting[is_strict(m)][here.state]) {
            size_t length = prefix;
            for (size_t i = at; i != 0; i = nodes.items[i].before) length++;
            text.count = 0;
            reserve(&text, length);
            text.count = length;
            if (prefix) memcpy(text.items, m->names.items + m->partial, prefix);
            for (size_t i = at; i != 0; i = nodes.items[i].before) text.items[--length] = nodes.items[i].byte;
            found = !is_taken(m, frame, text.items, text.count) && !is_known(m->engine, node, text.items, text.count);
        }
        for (uint32_t i = 0; i < 256 && !found; i++) {
            uint32_t byte = i < 26 ? 'a' + i : i < 'a' + 26 ? i - 26 : i; /* letters first */
            uint32_t next = a->following[here.state * a->class_count + a->classes[byte]];
            if (next == 0 || next > a->state_count || seen[next - 1] >= excluded) continue;
            seen[next - 1]++;
            *push(&nodes) = (Spelled){next - 1, (uint32_t)at, (uint8_t)byte};
        }
    }
    if (found && out != NULL) append(out, text.items + prefix, text.count - prefix);
    free(nodes.items);
    free(seen);
    free(text.items);
    return found;
}

/* ---- moves ---- */

static uint64_t missing_required(const Machine *m, const Frame *object, const ObjectShape *shape) {
    uint64_t missing = 0;
    for (uint32_t i = 0; i < object->node->known_words; i++) {
        missing += (uint64_t)__builtin_popcountll(shape->required_bits[i] & ~m->words.items[object->first_word + i]);
    }
    return missing;
}

static int open_object(Machine *m) { /* the value on top is one */
    Frame *f = top_of(m);
    Mask alive = {0};
    for (uint32_t i = 0; i < f->node->shape_count; i++) {
        uint32_t alternative = f->node->shapes[i].alternative;
        if (has(&f->alive, alternative) && has(&f->node->live, alternative)) add(&alive, alternative);
    }
    if (!any(alive) || m->depth >= MAX_DEPTH) return 0;
    m->depth++;
    *f = (Frame){.kind = OBJECT_FRAME, .first_word = (uint32_t)m->words.count, .first_entry = (uint32_t)m->entries.count,
                 .node = f->node, .alive = alive};
    open_names(m, f);
    reserve(&m->words, f->node->known_words);
    memset(m->words.items + m->words.count, 0, f->node->known_words * sizeof *m->words.items);
    m->words.count += f->node->known_words;
    put_json(m, '{');
    return 1;
}

static int open_array(Machine *m) {
    Frame *f = top_of(m);
    Mask alive = {0};
    for (uint32_t i = 0; i < f->node->array_count; i++) {
        uint32_t alternative = f->node->arrays[i].alternative;
        if (has(&f->alive, alternative) && has(&f->node->live, alternative)) add(&alive, alternative);
    }
    if (!any(alive) || m->depth >= MAX_DEPTH) return 0;
    m->depth++;
    *f = (Frame){.kind = ARRAY_FRAME, .node = f->node, .alive = alive};
    open_names(m, f);
    put_json(m, '[');
    return 1;
}

static int open_scalar(Machine *m, const Form *forms, uint32_t count, int is_text) {
    Frame *f = top_of(m);
    m->configs.count = m->stack.count = 0;
    m->partial = (uint32_t)m->names.count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t alternative = forms[i].alternative;
        if (!has(&f->alive, alternative) || m->engine->automata[forms[i].automaton].state_count == 0) continue;
        Config c = {.automaton = forms[i].automaton, .which = alternative};
        if (may_enter(m, &c, c.automaton, 0) && has_right_name(m, &c, 0, 0)) *push(&m->configs) = c;
    }
    if (m->configs.count == 0) return 0;
    f->kind = SCALAR;
    f->length = (uint64_t)is_text;
    if (is_text) put_json(m, '"');
    m->number_start = m->json ? m->json->count : 0;
    return 1;
}

/* Puts a value on top, and steps into it at once where its kind is implied. */
static int begin(Machine *m, const Node *node, Mask mask) {
    if (is_strict(m)) mask &= ~node->lenient;
    if (!any(mask)) return 0;
    uint64_t closes = m->open_kinds & node->closes & ~node->scope;
    if (closes) {
        m->open_kinds &= ~closes;
        touch_names(m);
    }
    m->frames[m->count++] = (Frame){.kind = VALUE, .node = node, .alive = mask};
    if (node->opens) return 1;
    if (node->shape_count) return open_object(m);
    if (node->array_count) return open_array(m);
    return node->number_count ? open_scalar(m, node->numbers, node->number_count, 0) : 1;
}

static int begin_item(Machine *m) { /* of the array on top */
    Frame *f = top_of(m);
    Mask alive = {0}, items = {0};
    for (uint32_t i = 0; i < f->node->array_count; i++) {
        const ArrayShape *array = &f->node->arrays[i];
        if (!has(&f->alive, array->alternative) || f->length >= array->maximum) continue;
        add(&alive, array->alternative);
        items |= array->items;
    }
    if (!any(items)) return 0;
    f->alive = alive;
    if (f->length > 0) put_json(m, ',');
    return begin(m, f->node->item, items);
}

/* What a value, which some alternatives of its node accept, leaves of the array or object that it is in. */
static int finish_in(Frame *f, Mask accepted) {
    if (f->kind == ARRAY_FRAME) {
        for (uint32_t i = 0; i < f->node->array_count; i++) {
            const ArrayShape *array = &f->node->arrays[i];
            if (!any(array->items & accepted)) f->alive &= ~only(array->alternative);
        }
        f->length++;
        return any(f->alive);
    }
    if (!f->key->narrows) return 1;
    for (uint32_t i = 0; i < f->node->shape_count; i++) {
        if (!any(f->key->masks[i] & accepted)) f->alive &= ~only(f->node->shapes[i].alternative);
    }
    return any(f->alive);
}

static int finish(Machine *m, Mask accepted) { /* the value on top has ended */
    if (!any(accepted)) return 0;
    m->count--;
    if (m->count > 0 && m->engine->has_names) finish_names(m, m->count - 1);
    if (m->count > 0) return finish_in(top_of(m), accepted);
    m->accepted = accepted;
    m->is_closed = 1;
    return 1;
}

static Mask accepted_at_end(Machine *m) { /* of the text or number on top */
    Mask accepted = {0};
    m->at = (uint32_t)(m->names.count - m->partial);
    for (size_t i = 0; i < m->configs.count; i++) {
        if (accepts_end(m, &m->configs.items[i])) add(&accepted, m->configs.items[i].which);
    }
    return accepted;
}

static uint32_t object_below(const Machine *m) { /* the frame of the innermost object */
    uint32_t frame = m->count - 1;
    while (frame > 0 && m->frames[frame].kind != OBJECT_FRAME) frame--;
    return frame;
}

static int finish_text(Machine *m, Mask accepted) { /* or a number */
    const Definition *definition = &top_of(m)->node->defines_text;
    if (top_of(m)->length) imply(m, top_of(m)->node->implies, m->names.items + m->partial, m->names.count - m->partial);
    if (definition->kind && any(accepted) && top_of(m)->length && !define(m, definition, object_below(m), 0)) return 0;
    m->names.count = m->partial;
    return finish(m, accepted);
}

static int end_scalar(Machine *m) {
    if (m->json != NULL && !top_of(m)->length) {
        *push(m->json) = 0;
        m->json->count--;
        size_t length = number_as_python_writes_it(m->json, m->number_start);
        if (length == 0) return 0;
        m->json->count = m->number_start + length;
    } else {
        put_json(m, '"');
    }
    return finish_text(m, accepted_at_end(m));
}

static int end_array(Machine *m) {
    const Frame *f = top_of(m);
    Mask accepted = {0};
    for (uint32_t i = 0; i < f->node->array_count; i++) {
        const ArrayShape *array = &f->node->arrays[i];
        if (has(&f->alive, array->alternative) && f->length >= array->minimum) add(&accepted, array->alternative);
    }
    m->depth--;
    close_names(m, m->count - 1);
    put_json(m, ']');
    return finish(m, accepted);
}

static int end_object(Machine *m) {
    const Frame *f = top_of(m);
    Mask accepted = {0};
    for (uint32_t i = 0; i < f->node->shape_count; i++) {
        const ObjectShape *shape = &f->node->shapes[i];
        if (has(&f->alive, shape->alternative) && f->length >= shape->minimum && !missing_required(m, f, shape)) {
            add(&accepted, shape->alternative);
        }
    }
    if (m->missing_jobs && f->node->defines_keys.kind == m->engine->graph_keys) return 0;
    m->depth--;
    close_names(m, m->count - 1);
    m->words.count = f->first_word;
    remove_entries(m, f->first_entry);
    put_json(m, '}');
    return finish(m, accepted);
}

/* Begins the value of a key, which stands among the object's known bits and names already. */
static int take(Machine *m, const Key *key) {
    Frame *f = top_of(m);
    Mask alive = {0}, mask = {0};
    f->length++;
    int is_only = f->node->shape_count == 1 && f->node->shapes->maximum == UNBOUNDED;
    for (uint32_t i = 0; i < (is_only ? 0 : f->node->shape_count); i++) {
        const ObjectShape *shape = &f->node->shapes[i];
        if (!has(&f->alive, shape->alternative) || !any(key->masks[i])) continue;
        if (shape->maximum != UNBOUNDED && f->length + missing_required(m, f, shape) > shape->maximum) continue;
        add(&alive, shape->alternative);
        mask |= key->masks[i];
    }
    if (!is_only && !any(alive)) return 0;
    if (!is_only) f->alive = alive;
    f->key = key;
    m->fields++;
    put_json(m, ':');
    return begin(m, key->child, is_only ? key->masks[0] : mask);
}

static int take_known(Machine *m, uint32_t literal) {
    Frame *f = top_of(m);
    uint32_t index;
    const Key *key = find_known(f->node, literal, &index);
    if (key == NULL) return 0;
    uint64_t *word = &m->words.items[f->first_word + index / 64], bit = (uint64_t)1 << index % 64;
    if (*word & bit) return 0;
    const Literal *text = &m->engine->literals[literal];
    if (f->node->has_cases) {
        if (is_taken(m, m->count - 1, text->bytes, text->length)) return 0;
        append(&m->names, text->bytes, text->length);
        add_entry(m, m->count - 1);
    }
    *word |= bit;
    imply(m, f->node->implies, text->bytes, text->length);
    if (m->json != NULL) {
        if (f->length > 0) *push(m->json) = ',';
        append(m->json, text->quoted, text->quoted_length);
    }
    return take(m, key);
}

/* Begins a key that is no known one, where the object on top may have more keys of some class. */
static int open_key(Machine *m) {
    const Frame *f = top_of(m);
    const Node *node = f->node;
    m->configs.count = m->stack.count = 0;
    for (uint32_t i = 0; i < node->additional_count; i++) {
        const AdditionalKey *class = &node->additional[i];
        Config c = {.automaton = class->automaton, .which = i};
        if (m->engine->automata[class->automaton].state_count == 0 || !may_enter(m, &c, c.automaton, 0)) continue;
        int takes = 0;
        for (uint32_t j = 0; j < node->shape_count && !takes; j++) {
            const ObjectShape *shape = &node->shapes[j];
            takes = has(&f->alive, shape->alternative) && any(class->key.masks[j]) &&
                    (shape->maximum == UNBOUNDED || f->length + missing_required(m, f, shape) < shape->maximum);
        }
        if (takes) *push(&m->configs) = c;
    }
    if (m->configs.count == 0) return 0;
    if (f->length > 0) put_json(m, ',');
    put_json(m, '"');
    m->partial = (uint32_t)m->names.count;
    m->frames[m->count++] = (Frame){.kind = KEY_FRAME, .node = node};
    return 1;
}

static int finish_key(Machine *m, uint32_t class) { /* of the object's additional keys */
    uint32_t frame = m->count - 2;
    const Node *node = m->frames[frame].node;
    const uint8_t *name = m->names.items + m->partial;
    size_t length = m->names.count - m->partial;
    if (node->defines_keys.kind && !define(m, &node->defines_keys, frame, 1)) return 0;
    if (m->has_loose_key) {
        m->has_loose_key = 0;
        m->names.count = m->partial;
    } else {
        if (is_known(m->engine, node, name, length) || is_taken(m, frame, name, length)) return 0;
        add_entry(m, frame);
    }
    m->count--;
    put_json(m, '"');
    return take(m, &node->additional[class].key);
}

static int end_key(Machine *m) {
    m->at = (uint32_t)(m->names.count - m->partial);
    for (size_t i = 0; i < m->configs.count; i++) {
        if (accepts_end(m, &m->configs.items[i])) return finish_key(m, m->configs.items[i].which);
    }
    return 0;
}

/* Reads bytes from `at` on as far as an automaton neither calls nor returns. `plain`: that of its states, NULL inside a
   call, where units are counted. Returns up to where it has read. */
static inline size_t read_alone_up_to(const Automaton *a, int mode, const uint8_t *plain, uint32_t *state, const uint16_t *codes,
                                      size_t at, size_t end) {
    const uint16_t *following = a->following;
    const uint32_t class_count = a->class_count, state_count = a->state_count;
    const uint8_t *entry = a->is_total[mode] ? NULL : a->entry[mode];
    uint32_t here = *state;
    for (; at < end; at++) {
        if (plain != NULL && plain[here] > BY_AUTOMATON) {
            at += plain_codes(codes + at, end - at);
            if (at == end) break;
        }
        uint32_t next = following[here * class_count + a->classes[codes[at]]] - 1u;
        if (next >= state_count || (entry != NULL && entry[next] != ALWAYS)) break;
        here = next;
    }
    *state = here;
    return at;
}

/* Reads bytes with the configurations. */
static int run_configs(Machine *m, const uint16_t *codes, size_t to) {
    size_t kept = 0, text_length = m->names.count - m->partial;
    uint32_t deepest = 0;
    int has_changed = 0, mode = is_strict(m);
    for (size_t i = 0; i < m->configs.count; i++) {
        Config c = m->configs.items[i];
        size_t at = 0;
        while (at < to) {
            const Automaton *a = &m->engine->automata[c.automaton];
            size_t stop = c.stack && to - at > MAX_TOKEN ? at + MAX_TOKEN : to;
            int is_alone = !(m->mode != LENIENT && a->names) && is_far_from_limits(m, &c);
            size_t before = at;
            const uint8_t *plain = c.stack == 0 ? a->plain : NULL;
            if (is_alone) at = read_alone_up_to(a, mode, plain, &c.state, codes, at, stop);
            if (c.stack) c.units += units_in(codes + before, at - before);
            if (at == stop) continue;
            m->at = (uint32_t)(text_length ? text_length - to + at : 0);
            if (!move(m, &c, codes[at])) break;
            at++;
        }
        if (at < to) continue;
        if (m->mask_plus_1 != 0) {
            has_changed |= (mode && m->engine->automata[c.automaton].names) || memcmp(&c, &m->configs.items[kept], sizeof c) != 0;
        }
        m->configs.items[kept++] = c;
        if (c.stack > deepest) deepest = c.stack;
    }
    has_changed |= kept != m->configs.count;
    m->configs.count = kept;
    if (deepest + 1 < m->stack.count) m->stack.count = deepest + 1; /* nobody refers to those above */
    if (has_changed) m->mask_plus_1 = 0;
    return kept > 0;
}

/* Reads bytes inside the text, number or key on top. */
static int run(Machine *m, const uint16_t *codes, size_t length) {
    const Frame *f = top_of(m);
    int is_key = f->kind == KEY_FRAME;
    if (is_key || m->mode != LENIENT || f->node->defines_text.kind) {
        reserve(&m->names, length);
        for (size_t i = 0; i < length; i++) m->names.items[m->names.count++] = (uint8_t)codes[i];
        if (is_key || f->node->defines_text.kind) m->mask_plus_1 = 0;
    }
    if (!run_configs(m, codes, length)) return 0;
    if (!is_key) return 1;
    size_t kept = 0;
    for (size_t i = 0; i < m->configs.count; i++) {
        if (spell(m, m->count - 2, &m->configs.items[i], NULL)) m->configs.items[kept++] = m->configs.items[i];
    }
    m->configs.count = kept;
    return kept > 0;
}

static int step_value(Machine *m, uint32_t code) {
    Frame *f = top_of(m);
    const Node *node = f->node;
    if (code >= NULL_VALUE && code <= FALSE_VALUE) {
        const char *word = code == NULL_VALUE ? "null" : code == TRUE_VALUE ? "true" : "false";
        if (m->json != NULL) append(m->json, word, strlen(word));
        return finish(m, node->constants[code - NULL_VALUE] & f->alive);
    }
    if (node->opens && code == OBJECT) return open_object(m);
    if (node->opens && code == ARRAY) return open_array(m);
    if (node->opens && code == NUMBER) return open_scalar(m, node->numbers, node->number_count, 0);
    if (code >= FIRST_LITERAL && !node->text_count) {
        const NameSlot *slot = find_literal(node->members, node->member_slots, code - FIRST_LITERAL);
        if (slot == NULL) return 0;
        const Literal *literal = &m->engine->literals[code - FIRST_LITERAL];
        if (m->json != NULL) append(m->json, literal->quoted, literal->quoted_length);
        imply(m, node->implies, literal->bytes, literal->length);
        return finish(m, node->member_masks[slot->index] & f->alive);
    }
    return code == END && node->text_count && open_scalar(m, node->texts, node->text_count, 1) && end_scalar(m);
}

/* Makes the text, number or key that begins with a byte the top. */
static int open_bytes(Machine *m) {
    for (;;) {
        const Frame *f = top_of(m);
        if (f->kind == SCALAR || f->kind == KEY_FRAME) return 1;
        m->mask_plus_1 = 0;
        if (f->kind == OBJECT_FRAME) return open_key(m);
        if (f->kind == VALUE) return f->node->text_count && open_scalar(m, f->node->texts, f->node->text_count, 1);
        if (!begin_item(m)) return 0;
    }
}

static size_t walk(Machine *m, const uint16_t *codes, size_t count);

/* Reads one code; 0 where no valid document has it, and then the machine is in no state. */
static int step(Machine *m, uint32_t code) {
    if (m->is_closed) return 0;
    if (code < 256) return walk(m, &(uint16_t){(uint16_t)code}, 1) == 1;
    m->mask_plus_1 = 0;
    while (top_of(m)->kind == ARRAY_FRAME) {
        if (code == ARRAY_END) return end_array(m);
        if (!begin_item(m)) return 0;
    }
    switch (top_of(m)->kind) {
    case SCALAR:
        return code == END && end_scalar(m);
    case VALUE:
        return step_value(m, code);
    case KEY_FRAME:
        return code == END && end_key(m);
    default:
        if (code == OBJECT_END) return end_object(m);
        if (code >= FIRST_LITERAL) return take_known(m, code - FIRST_LITERAL);
        return code == END && open_key(m) && end_key(m);
    }
}

/* Reads codes; returns how many it has read before one that no valid document has, or before the end of the document. */
static size_t walk(Machine *m, const uint16_t *codes, size_t count) {
    size_t at = 0;
    while (at < count && !m->is_closed) {
        if (codes[at] < 256) {
            size_t end = at + 1;
            while (end < count && codes[end] < 256) end++;
            if (!open_bytes(m)) return at;
            put_json_bytes(m, codes + at, end - at);
            if (!run(m, codes + at, end - at)) return at;
            at = end;
        } else if (step(m, codes[at])) {
            at++;
        } else {
            return at;
        }
    }
    return at;
}

static void clear_machine(Machine *m) {
    m->count = m->depth = m->is_closed = m->mask_plus_1 = m->partial = m->has_loose_key = 0;
    m->fields = m->missing_jobs = m->is_owner_needed = 0;
    m->json = NULL;
    if (m->entries.count) memset(m->slots.items, 0, m->slots.count * sizeof *m->slots.items); /* else they are empty */
    m->configs.count = m->stack.count = m->words.count = m->names.count = m->entries.count = 0;
    m->known.count = m->known_bytes.count = m->needs.count = m->owner_start = m->owner_length = m->at = 0;
    m->name_slots.count = 0;
    m->engine->explored = NULL; /* where memory ran out it still is */
    m->open_kinds = m->mode == STRICT ? m->engine->forward : 0;
    touch_names(m);
}

/* Before a value of a node, by itself, which is written as JSON, if anywhere. 0: it has no finite value. */
static int start(Machine *m, uint32_t node, int mode, Bytes *json) {
    m->mode = (uint32_t)mode;
    clear_machine(m);
    m->json = json;
    return begin(m, &m->engine->nodes[node], m->engine->nodes[node].live);
}

/* ---- JSON text to codes ---- */

typedef struct {
    Machine *m;
    Codes *codes;
    const uint8_t *text; /* UTF-8 with a NUL at its end, which no rule of JSON takes: scanning stops there */
    size_t at, length;
} Writer;

static const uint8_t ends_plain_text[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    ['"'] = 1, ['\\'] = 1,
};

static uint8_t skip_space(Writer *w) { /* returns the byte after it */
    const uint8_t *text = w->text;
    size_t at = w->at;
    while (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') at++;
    w->at = at;
    return text[at];
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
    if (value < 0 || (value >= 0xDC00 && value <= 0xDFFF)) return NULL;
    in += 5;
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

static int write_string(Writer *w) { /* its bytes, without END; w->at is at the opening quote */
    reserve(w->codes, w->length - w->at + 1); /* it cannot be longer than the rest of the text */
    const uint8_t *in = w->text + ++w->at;
    uint16_t *out = w->codes->items + w->codes->count;
    for (;;) {
        while (!ends_plain_text[*in]) *out++ = *in++;
        if (*in != '\\') break;
        in = write_escape(in + 1, &out);
        if (in == NULL) return 0;
    }
    if (*in != '"') return 0; /* a control character, or the end of the text */
    w->at = (size_t)(in + 1 - w->text);
    w->codes->count = (size_t)(out - w->codes->items);
    return 1;
}

static uint32_t literal_of(Engine *engine, const uint16_t *codes, size_t length) { /* its number + 1, 0: none */
    engine->key.count = 0;
    reserve(&engine->key, length);
    for (size_t i = 0; i < length; i++) engine->key.items[i] = (uint8_t)codes[i];
    return map_get(&engine->literal_numbers, engine->key.items, length);
}

static int write_text(Writer *w) { /* at a quote */
    Machine *m = w->m;
    Frame *f = top_of(m);
    size_t start = w->codes->count;
    if (f->kind != VALUE || !write_string(w)) return 0;
    const uint16_t *codes = w->codes->items + start;
    size_t length = w->codes->count - start;
    if (f->node->text_count) {
        *push(w->codes) = END;
        if (!open_scalar(m, f->node->texts, f->node->text_count, 1)) return 0;
        return (length == 0 || run(m, codes, length)) && end_scalar(m);
    }
    uint32_t literal = literal_of(m->engine, codes, length);
    w->codes->count = start;
    if (literal == 0) return 0;
    *push(w->codes) = (uint16_t)(FIRST_LITERAL + literal - 1);
    return step_value(m, FIRST_LITERAL + literal - 1);
}

static int write_key(Writer *w) {
    Machine *m = w->m;
    size_t start = w->codes->count;
    if (!write_string(w)) return 0;
    size_t length = w->codes->count - start;
    uint32_t index, literal = literal_of(m->engine, w->codes->items + start, length);
    if (literal != 0 && find_known(top_of(m)->node, literal - 1, &index) != NULL) {
        w->codes->count = start;
        *push(w->codes) = (uint16_t)(FIRST_LITERAL + literal - 1);
        return take_known(m, literal - 1);
    }
    *push(w->codes) = END;
    return open_key(m) && (length == 0 || run(m, w->codes->items + start, length)) && end_key(m);
}

static size_t count_digits(const uint8_t *in) {
    size_t count = 0;
    while (in[count] >= '0' && in[count] <= '9') count++;
    return count;
}

static int write_number(Writer *w) {
    Machine *m = w->m;
    const uint8_t *begin_of_number = w->text + w->at, *in = begin_of_number;
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
    size_t length = (size_t)(in - begin_of_number);
    Bytes *text = &m->engine->key;
    text->count = 0;
    append(text, begin_of_number, length);
    *push(text) = 0;
    text->count = length;
    length = number_as_python_writes_it(text, 0);
    if (length == 0) return 0;
    w->at = (size_t)(in - w->text);
    if (top_of(m)->kind == VALUE) {
        if (!top_of(m)->node->opens || !step_value(m, NUMBER)) return 0;
        *push(w->codes) = NUMBER;
    }
    if (top_of(m)->kind != SCALAR) return 0;
    reserve(w->codes, length + 1);
    uint16_t *codes = w->codes->items + w->codes->count;
    for (size_t i = 0; i < length; i++) codes[i] = text->items[i];
    codes[length] = END;
    w->codes->count += length + 1;
    return run(m, codes, length) && end_scalar(m);
}

static int write_word(Writer *w, const char *word, uint32_t code) {
    size_t length = strlen(word);
    if (strncmp((const char *)w->text + w->at, word, length) != 0) return 0;
    w->at += length;
    *push(w->codes) = (uint16_t)code;
    return top_of(w->m)->kind == VALUE && step_value(w->m, code);
}

/* Opens an array or object; `kind` is the frame that is on top where the node implies it. */
static int write_opening(Writer *w, uint32_t code, uint32_t kind) {
    Frame *f = top_of(w->m);
    w->at++;
    if (f->kind == kind) return 1;
    if (f->kind != VALUE || !f->node->opens) return 0;
    *push(w->codes) = (uint16_t)code;
    return step_value(w->m, code);
}

/* Writes a document, or one that is cut off between two parts of JSON. Returns DONE, OPEN or FAILED. */
static int write_document(Writer *w) {
    Machine *m = w->m;
    enum { BEFORE_VALUE, BEFORE_ITEM, BEFORE_KEY, AFTER_VALUE } at = BEFORE_VALUE;
    for (;;) {
        uint8_t next = skip_space(w);
        if (w->at == w->length) return m->is_closed ? DONE : OPEN;
        if (m->is_closed) return FAILED;
        Frame *f = top_of(m);
        if (at == AFTER_VALUE) {
            int is_object = f->kind == OBJECT_FRAME;
            w->at++;
            if (next == ',') {
                at = is_object ? BEFORE_KEY : BEFORE_ITEM;
            } else if (next == (is_object ? '}' : ']')) {
                *push(w->codes) = is_object ? OBJECT_END : ARRAY_END;
                if (!(is_object ? end_object(m) : end_array(m))) return FAILED;
            } else {
                return FAILED;
            }
            continue;
        }
        if (at == BEFORE_KEY) {
            if (next != '"' || !write_key(w) || skip_space(w) != ':') return FAILED;
            w->at++;
            at = BEFORE_VALUE;
            continue;
        }
        if (at == BEFORE_ITEM && !begin_item(m)) return FAILED;
        at = AFTER_VALUE;
        int is_right = 0;
        switch (next) {
        case '"':
            is_right = write_text(w);
            break;
        case '{':
            is_right = write_opening(w, OBJECT, OBJECT_FRAME);
            if (is_right && skip_space(w) != '}' && w->at < w->length) at = BEFORE_KEY;
            break;
        case '[':
            is_right = write_opening(w, ARRAY, ARRAY_FRAME);
            if (is_right && skip_space(w) != ']' && w->at < w->length) at = BEFORE_ITEM;
            break;
        case 'n':
            is_right = write_word(w, "null", NULL_VALUE);
            break;
        case 't':
            is_right = write_word(w, "true", TRUE_VALUE);
            break;
        case 'f':
            is_right = write_word(w, "false", FALSE_VALUE);
            break;
        default:
            is_right = write_number(w);
        }
        if (!is_right) return FAILED;
    }
}

/* ---- tokens ---- */

typedef struct {
    const uint16_t *codes;
    uint32_t length, token_plus_1;
} String;

/* The tokens alone, as a double array (Aoe, 1989), which cutting walks: the cell that a code leads to from a cell has the
   place of the first one's `next` plus the code, and says where it comes from, so that a step looks at one cell only. */
typedef struct {
    uint32_t next;   /* four times the place that codes are added to, with the two bits below */
    uint32_t parent; /* the place of the cell that leads here, + 1; 0: the cell is free */
} Cell;
enum { IS_TOKEN = 1, GOES_ON = 2 /* there are longer tokens */ };

typedef struct {
    uint32_t string, rest;
} Rest;

/* Nodes are numbered depth first, in the order of their codes, so that all below a node follow it; the root is node 0. */
typedef struct {
    uint32_t end;           /* the node behind those that are below */
    uint32_t place;         /* in `order`, of the first string that begins so */
    uint32_t string_plus_1; /* that ends here; 0: none */
    uint16_t code, depth;   /* code: that leads here */
} TrieNode;

/* The strings are the tokens and, for masks, what may be left of one after a code of structure. A token has its own
   number as a string, the others follow. */
struct Trie {
    uint32_t token_count, string_count, node_count, code_count;
    uint32_t longest;             /* the most codes of structure in a token */
    Codes text;                   /* the codes of all tokens, one after the other */
    uint32_t *starts;             /* where each token's begin; one more for the end */
    struct TokenJson {            /* the JSON of a token that is bytes alone */
        uint32_t start;           /* in `json` */
        uint16_t length, needs;   /* needs: a text must be as plain as this to take it in without a look */
    } *token_json;
    Bytes json;
    VECTOR(Cell) cells;
    Numbers cell_tokens;          /* the token that ends in a cell */
    uint32_t *first_node;         /* the child of the root by its code; 0: none */
    VECTOR(TrieNode) nodes;       /* one more for the end */
    Numbers path;                 /* of the strings in their order: the place of their codes in `text` */
    Numbers rest_start;           /* of a node that a code of structure leads to: where `rests` has what its strings go on with */
    VECTOR(Rest) rests;
    uint32_t *order;              /* strings in the order of their codes */
};

static inline const TrieNode *node_at(const Trie *trie, uint32_t node) { return &trie->nodes.items[node]; }
static inline int has_children(const Trie *trie, uint32_t node) { return node_at(trie, node)->end > node + 1; }
static inline uint32_t strings_below(const Trie *trie, uint32_t node) {
    return node_at(trie, node_at(trie, node)->end)->place - node_at(trie, node)->place;
}

static uint32_t child_of(const Trie *trie, uint32_t node, uint32_t code) { /* 0: none */
    if (node == 0) return code < trie->code_count ? trie->first_node[code] : 0;
    uint32_t child = node + 1, end = node_at(trie, node)->end;
    while (child < end && node_at(trie, child)->code < code) child = node_at(trie, child)->end;
    return child < end && node_at(trie, child)->code == code ? child : 0;
}

static inline uint32_t cell_behind(const Trie *trie, uint32_t cell, uint32_t code) { /* 0: no token goes on so */
    if (code >= trie->code_count) return 0;
    uint32_t next = trie->cells.items[cell].next / 4 + code;
    return trie->cells.items[next].parent == cell + 1 ? next : 0;
}

/* Cuts codes into the longest token in each position, from left to right; codes that are no token are left out.
   Returns the number of ids. */
static size_t cut(const Trie *trie, const uint16_t *codes, size_t count, uint32_t *ids) {
    const Cell *cells = trie->cells.items;
    const uint32_t *tokens = trie->cell_tokens.items, code_count = trie->code_count;
    size_t id_count = 0;
    for (size_t at = 0; at < count;) {
        uint32_t found = 0, cell = 0, next = cells[0].next;
        size_t ahead = at++;
        while (next & GOES_ON && ahead < count && codes[ahead] < code_count) {
            uint32_t place = next / 4 + codes[ahead];
            if (cells[place].parent != cell + 1) break;
            cell = place;
            next = cells[place].next;
            ahead++;
            if (!(next & IS_TOKEN)) continue;
            found = cell;
            at = ahead;
        }
        if (found != 0) ids[id_count++] = tokens[found];
    }
    return id_count;
}

static const uint16_t *codes_of(const Trie *trie, uint32_t token, size_t *length) {
    *length = trie->starts[token + 1] - trie->starts[token];
    return trie->text.items + trie->starts[token];
}

static void free_trie(Trie *trie) {
    if (trie == NULL) return;
    void *all[] = {trie->cells.items, trie->cell_tokens.items, trie->text.items, trie->starts, trie->first_node, trie->nodes.items,
                   trie->rest_start.items, trie->rests.items, trie->order, trie->token_json, trie->json.items, trie->path.items, trie};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int by_codes(const void *left, const void *right) {
    const String *a = left, *b = right;
    for (uint32_t i = 0; i < a->length && i < b->length; i++) {
        if (a->codes[i] != b->codes[i]) return a->codes[i] < b->codes[i] ? -1 : 1;
    }
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return a->token_plus_1 > b->token_plus_1 ? -1 : a->token_plus_1 < b->token_plus_1;
}

/* What the strings below one node go on with, which stands at another one: `rest`, 0 for the whole string. */
static void collect_rests(Trie *trie, uint32_t node, uint32_t rest) {
    const TrieNode *here = node_at(trie, node);
    if (here->string_plus_1) *push(&trie->rests) = (Rest){here->string_plus_1 - 1, rest == 0 ? trie->string_count : node_at(trie, rest)->string_plus_1 - 1};
    for (uint32_t child = node + 1; child < here->end; child = node_at(trie, child)->end) {
        collect_rests(trie, child, child_of(trie, rest, node_at(trie, child)->code));
    }
}

static void load_json(Trie *trie) {
    trie->token_json = allocate(trie->token_count, sizeof *trie->token_json);
    for (uint32_t token = 0; token < trie->token_count; token++) {
        struct TokenJson *here = &trie->token_json[token];
        const uint16_t *codes = trie->text.items + trie->starts[token];
        size_t length = trie->starts[token + 1] - trie->starts[token];
        here->start = (uint32_t)trie->json.count;
        here->needs = length > MAX_TOKEN ? STRUCTURE : ASCII_BUT_DOLLARS;
        for (size_t i = 0; i < length; i++) {
            uint32_t needs = codes[i] > 255 ? STRUCTURE : codes[i] > 127 ? BYTES : codes[i] == '$' ? ALL_ASCII : NOTHING;
            if (needs > here->needs) here->needs = (uint16_t)needs;
        }
        if (here->needs == STRUCTURE) continue;
        reserve(&trie->json, 6 * length);
        uint8_t *out = trie->json.items + trie->json.count;
        for (size_t i = 0; i < length; i++) out = write_byte(out, (uint8_t)codes[i]);
        trie->json.count = (size_t)(out - trie->json.items);
        here->length = (uint16_t)(trie->json.count - here->start);
    }
    reserve(&trie->json, SPARE_JSON); /* may be copied with the last */
    memset(trie->json.items + trie->json.count, 0, SPARE_JSON);
}

enum { CELLS_TO_TRY = 1024 /* the last ones: those before are nearly full */ };

/* The place that codes are added to for the children of a node, which lead on to tokens: their cells must be free. */
static uint32_t find_cells(Trie *trie, const Numbers *children, uint32_t used) {
    uint32_t first = node_at(trie, children->items[0])->code, from = used > CELLS_TO_TRY ? used - CELLS_TO_TRY : 1;
    for (uint32_t cell = from > first ? from : first; cell < used; cell++) {
        size_t i = 0;
        while (i < children->count && !trie->cells.items[cell - first + node_at(trie, children->items[i])->code].parent) i++;
        if (i == children->count) return cell - first;
    }
    return used;
}

static void load_cells(Trie *trie, const uint32_t *tokens_before) {
    uint32_t used = 1, *cell_of = allocate(trie->nodes.count, sizeof *cell_of);
    Numbers children = {0}, waiting = {0}; /* nodes; breadth first, so that the cells that are used most are near each other */
    *push(&waiting) = 0;
    for (size_t at = 0; at < waiting.count; at++) {
        uint32_t node = waiting.items[at], cell = cell_of[node], own = node_at(trie, node)->string_plus_1;
        children.count = 0;
        for (uint32_t child = node + 1; child < node_at(trie, node)->end; child = node_at(trie, child)->end) {
            uint32_t first = node_at(trie, child)->place;
            if (tokens_before[first] < tokens_before[first + strings_below(trie, child)]) *push(&children) = child;
        }
        size_t cell_count = (size_t)used + CELLS_TO_TRY + trie->code_count;
        while (trie->cells.count < cell_count) {
            *push(&trie->cells) = (Cell){0};
            *push(&trie->cell_tokens) = 0;
        }
        if (node == 0) trie->cells.items[0].parent = UINT32_MAX;
        uint32_t next = children.count ? find_cells(trie, &children, used) : 0;
        trie->cells.items[cell].next = 4 * next + (children.count ? GOES_ON : 0);
        if (own != 0 && own <= trie->token_count) {
            trie->cells.items[cell].next |= IS_TOKEN;
            trie->cell_tokens.items[cell] = own - 1;
        }
        for (size_t i = 0; i < children.count; i++) {
            uint32_t place = next + node_at(trie, children.items[i])->code;
            trie->cells.items[place].parent = cell + 1;
            cell_of[children.items[i]] = place;
            if (place >= used) used = place + 1;
        }
        append(&waiting, children.items, children.count);
    }
    free(children.items);
    free(waiting.items);
    free(cell_of);
}

static void load_tokens(Trie *trie, const uint16_t *codes, const uint32_t *lengths, uint32_t count, int has_rests) {
    size_t total = 0;
    for (uint32_t i = 0; i < count; i++) total += lengths[i];
    reserve(&trie->text, total);
    append(&trie->text, codes, total);
    trie->starts = allocate((size_t)count + 1, sizeof *trie->starts);
    trie->token_count = count;
    for (size_t i = 0; i < total; i++) {
        if (codes[i] >= trie->code_count) trie->code_count = codes[i] + 1u;
    }
    trie->first_node = allocate(trie->code_count, sizeof *trie->first_node);
    VECTOR(String) strings = {0};
    for (uint32_t token = 0, at = 0; token < count; token++, at += lengths[token - 1]) {
        const uint16_t *here = trie->text.items + at;
        uint32_t structure = 0;
        *push(&strings) = (String){here, lengths[token], token + 1};
        for (uint32_t i = 0; i < lengths[token]; i++) {
            structure += here[i] > 255;
            if (has_rests && here[i] > 255 && i + 1 < lengths[token]) {
                *push(&strings) = (String){here + i + 1, lengths[token] - i - 1, 0};
            }
        }
        if (structure > trie->longest) trie->longest = structure;
        trie->starts[token + 1] = at + lengths[token];
    }
    qsort(strings.items, strings.count, sizeof *strings.items, by_codes);
    trie->order = allocate(strings.count + 1, sizeof *trie->order);
    uint32_t further = count, *tokens_before = allocate(strings.count + 1, sizeof *tokens_before); /* a place */
    for (size_t i = 0; i < strings.count; i++) { /* a token comes before what is left of others and the same */
        const String *last = &strings.items[trie->string_count ? trie->string_count - 1 : 0];
        String here = strings.items[i];
        if (i != 0 && here.length == last->length && !memcmp(here.codes, last->codes, here.length * sizeof *here.codes)) continue;
        trie->order[trie->string_count] = here.token_plus_1 ? here.token_plus_1 - 1 : further++;
        tokens_before[trie->string_count + 1] = tokens_before[trie->string_count] + (here.token_plus_1 != 0);
        strings.items[trie->string_count++] = here;
    }
    *push(&trie->nodes) = (TrieNode){0};
    Numbers open = {0}; /* the nodes on the way to a string */
    *push(&open) = 0;
    for (uint32_t place = 0; place < trie->string_count; place++) {
        String here = strings.items[place];
        uint32_t shared = 0;
        while (shared + 1 < open.count && shared < here.length && node_at(trie, open.items[shared + 1])->code == here.codes[shared]) shared++;
        while (open.count > shared + 1) trie->nodes.items[open.items[--open.count]].end = (uint32_t)trie->nodes.count;
        for (; shared < here.length; shared++) {
            if (shared == 0) trie->first_node[here.codes[0]] = (uint32_t)trie->nodes.count;
            *push(&open) = (uint32_t)trie->nodes.count;
            *push(&trie->nodes) = (TrieNode){.place = place, .code = here.codes[shared], .depth = (uint16_t)(shared + 1)};
        }
        trie->nodes.items[open.items[here.length]].string_plus_1 = trie->order[place] + 1;
        *push(&trie->path) = (uint32_t)(here.codes - trie->text.items);
    }
    trie->node_count = (uint32_t)trie->nodes.count;
    while (open.count > 0) trie->nodes.items[open.items[--open.count]].end = trie->node_count;
    *push(&trie->nodes) = (TrieNode){.end = trie->node_count, .place = trie->string_count};
    *push(&trie->path) = 0;
    trie->string_count = further;
    load_cells(trie, tokens_before);
    free(open.items);
    free(tokens_before);
    free(strings.items);
    reserve(&trie->rest_start, trie->node_count);
    for (uint32_t node = 1; node < trie->node_count && has_rests; node++) {
        if (node_at(trie, node)->code < 256) continue;
        trie->rest_start.items[node] = (uint32_t)trie->rests.count;
        collect_rests(trie, node, 0);
    }
}

/* ---- the shortest way to the end of a document ---- */

static uint64_t cost_of(const Node *node, const Mask *mask) {
    uint64_t cost = INFINITE;
    for (uint32_t i = 0; i < node->alternative_count; i++) {
        if (has(mask, i) && node->costs[i] < cost) cost = node->costs[i];
    }
    return cost;
}

static void put_bytes(Codes *out, const Bytes *bytes, size_t from) {
    for (size_t i = from; i < bytes->count; i++) *push(out) = bytes->items[i];
}

static int put_shape(Machine *m, uint32_t index, Codes *out);

/* Appends the shortest value of some alternative. The machine is one whose frames, words and names may be changed;
   they come back as they were. */
static int put_value(Machine *m, const Node *node, const Mask *mask, Codes *out) {
    uint32_t best = 0;
    uint64_t cost = INFINITE;
    for (uint32_t i = 0; i < node->alternative_count; i++) {
        if (has(mask, i) && node->costs[i] < cost && !(is_strict(m) && has(&node->lenient, i))) {
            cost = node->costs[i];
            best = i;
        }
    }
    if (cost >= INFINITE) return 0;
    const Alternative *alternative = &node->alternatives[best];
    int is_right = 1;
    Bytes text = {0};
    switch (alternative->kind) {
    case NUMBER:
    case END:
        if (alternative->kind == NUMBER && node->opens) *push(out) = NUMBER;
        shortest_new_text(m, (Config){.automaton = alternative->index}, &node->defines_text, &text);
        put_bytes(out, &text, 0);
        free(text.items);
        *push(out) = END;
        break;
    case ARRAY: {
        const ArrayShape *array = &node->arrays[alternative->index];
        if (node->opens) *push(out) = ARRAY;
        size_t from = out->count;
        if (array->minimum > 0) is_right = put_value(m, node->item, &array->items, out);
        size_t length = out->count - from;
        for (uint64_t i = 1; i < array->minimum && is_right; i++) {
            reserve(out, length);
            append(out, out->items + from, length);
        }
        *push(out) = ARRAY_END;
        break;
    }
    case OBJECT:
        if (node->opens) *push(out) = OBJECT;
        if (m->count > MAX_DEPTH) return 0;
        m->frames[m->count++] = (Frame){.kind = VALUE, .node = node, .alive = only(best)};
        is_right = open_object(m) && put_shape(m, alternative->index, out);
        m->words.count = top_of(m)->first_word;
        remove_entries(m, top_of(m)->first_entry);
        m->depth--;
        m->count--;
        break;
    default:
        *push(out) = (uint16_t)(alternative->kind == FIRST_LITERAL ? FIRST_LITERAL + alternative->index : alternative->kind);
    }
    return is_right;
}

static void set_known(Machine *m, uint32_t index) {
    Frame *f = top_of(m);
    m->words.items[f->first_word + index / 64] |= (uint64_t)1 << index % 64;
    f->length++;
}

static int is_present(const Machine *m, const Frame *f, uint32_t index) {
    return m->words.items[f->first_word + index / 64] >> index % 64 & 1;
}

static int compare_names(const uint8_t *left, size_t left_length, const uint8_t *right, size_t right_length) {
    int order = memcmp(left, right, left_length < right_length ? left_length : right_length);
    return order ? order : (left_length > right_length) - (left_length < right_length);
}

/* Appends the keys that one shape of the object on top still needs, with their values, and the object's end. */
static int put_shape(Machine *m, uint32_t index, Codes *out) {
    const Node *node = top_of(m)->node;
    const ObjectShape *shape = &node->shapes[index];
    for (uint32_t i = 0; i < shape->required_count; i++) {
        uint32_t known = shape->required[i];
        const Key *key = &node->keys[known];
        if (is_present(m, top_of(m), known)) continue;
        *push(out) = (uint16_t)(FIRST_LITERAL + key->literal);
        if (!put_value(m, key->child, &key->masks[index], out)) return 0;
        set_known(m, known);
    }
    while (m->missing_jobs && node->defines_keys.kind == m->engine->graph_keys && node->additional_count) {
        const Key *key = &node->additional[0].key;
        Name job = {0};
        count_missing_jobs(m, &job);
        m->missing_jobs--;
        *push(&m->needs) = (Name){.kind = m->engine->graph_keys, .start = job.start, .length = job.length};
        append(&m->names, m->known_bytes.items + job.start, job.length);
        add_entry(m, m->count - 1);
        for (uint32_t i = 0; i < job.length; i++) *push(out) = m->known_bytes.items[job.start + i];
        *push(out) = END;
        top_of(m)->length++;
        if (!put_value(m, key->child, &key->masks[index], out)) return 0;
    }
    while (top_of(m)->length < shape->minimum) {
        uint64_t cost = INFINITE;
        const Key *best = NULL;
        uint32_t best_known = 0;
        Bytes name = {0}, other = {0};
        for (uint32_t i = 0; i < node->known_count; i++) {
            const Key *key = &node->keys[i];
            const Literal *literal = &m->engine->literals[key->literal];
            uint64_t here = cost_of(key->child, &key->masks[index]) + 1;
            if (here >= INFINITE || here > cost || is_present(m, top_of(m), i)) continue;
            other.count = 0;
            append(&other, literal->bytes, literal->length);
            if (here == cost && compare_names(name.items, name.count, other.items, other.count) <= 0) continue;
            copy_vector(&name, &other);
            cost = here;
            best = key;
            best_known = i;
        }
        for (uint32_t i = 0; i < node->additional_count; i++) {
            const Key *key = &node->additional[i].key;
            other.count = 0;
            if (!any(key->masks[index]) || !spell(m, m->count - 1, &(Config){.automaton = node->additional[i].automaton}, &other)) continue;
            uint64_t here = cost_of(key->child, &key->masks[index]) + other.count + 1;
            if (here > cost || (here == cost && best && compare_names(name.items, name.count, other.items, other.count) <= 0)) {
                continue;
            }
            copy_vector(&name, &other);
            cost = here;
            best = key;
            best_known = UINT32_MAX;
        }
        if (best != NULL && best_known != UINT32_MAX) {
            *push(out) = (uint16_t)(FIRST_LITERAL + best->literal);
            set_known(m, best_known);
        } else if (best != NULL) {
            put_bytes(out, &name, 0);
            *push(out) = END;
            append(&m->names, name.items, name.count);
            add_entry(m, m->count - 1);
            top_of(m)->length++;
        }
        free(name.items);
        free(other.items);
        if (best == NULL || !put_value(m, best->child, &best->masks[index], out)) return 0;
    }
    *push(out) = OBJECT_END;
    return 1;
}

/* Appends what ends the value on top of a machine (of a key: the key and its value). The machine may be changed. */
static int put_rest(Machine *m, Codes *out) {
    Frame f = *top_of(m);
    size_t from = out->count, best = 0;
    Codes option = {0};
    Bytes text = {0}, least = {0};
    int found = 0;
    if (f.kind == VALUE) return put_value(m, f.node, &f.alive, out);
    if (f.kind == SCALAR) {
        for (size_t i = 0; i < m->configs.count; i++) {
            text.count = 0;
            shortest_new_text(m, m->configs.items[i], &f.node->defines_text, &text);
            if (found && (text.count > least.count || (text.count == least.count && (text.count == 0 || memcmp(text.items, least.items, text.count) >= 0)))) {
                continue;
            }
            copy_vector(&least, &text);
            found = 1;
        }
        put_bytes(out, &least, 0);
        *push(out) = END;
    } else if (f.kind == ARRAY_FRAME) {
        uint64_t cost = INFINITE;
        for (uint32_t i = 0; i < f.node->array_count; i++) {
            const ArrayShape *array = &f.node->arrays[i];
            uint64_t count = array->minimum > f.length ? array->minimum - f.length : 0;
            uint64_t here = count ? count * cost_of(f.node->item, &array->items) : 0;
            if (!has(&f.alive, array->alternative) || here >= cost) continue;
            cost = here;
            best = i;
            found = 1;
        }
        const ArrayShape *array = &f.node->arrays[best];
        for (uint64_t i = f.length; i < array->minimum && found; i++) found = put_value(m, f.node->item, &array->items, out);
        *push(out) = ARRAY_END;
    } else if (f.kind == KEY_FRAME) {
        m->count--;
        for (size_t i = 0; i < m->configs.count; i++) {
            const Config *c = &m->configs.items[i];
            const Key *key = &f.node->additional[c->which].key;
            Mask mask = {0};
            text.count = option.count = 0;
            if (!spell(m, m->count - 1, c, &text)) continue;
            for (uint32_t j = 0; j < f.node->shape_count; j++) {
                if (has(&top_of(m)->alive, f.node->shapes[j].alternative)) mask |= key->masks[j];
            }
            put_bytes(&option, &text, 0);
            *push(&option) = END;
            uint32_t partial = m->partial;
            size_t length = m->names.count;
            m->partial = (uint32_t)length;
            if (!put_value(m, key->child, &mask, &option) || (found && option.count >= best)) option.count = 0;
            m->names.count = length;
            m->partial = partial;
            if (option.count == 0) continue;
            out->count = from;
            append(out, option.items, option.count);
            best = option.count;
            found = 1;
        }
    } else {
        for (uint32_t i = 0; i < f.node->shape_count; i++) {
            if (!has(&f.alive, f.node->shapes[i].alternative)) continue;
            Words words = {0};
            size_t entries = m->entries.count, needs = m->needs.count;
            uint32_t missing = m->missing_jobs;
            option.count = 0;
            append(&words, m->words.items + f.first_word, f.node->known_words);
            if (put_shape(m, i, &option) && (!found || option.count < best)) {
                out->count = from;
                append(out, option.items, option.count);
                best = option.count;
                found = 1;
            }
            *top_of(m) = f;
            m->needs.count = needs;
            m->missing_jobs = missing;
            if (words.count) memcpy(m->words.items + f.first_word, words.items, words.count * sizeof *words.items);
            remove_entries(m, (uint32_t)entries);
            free(words.items);
        }
    }
    free(option.items);
    free(text.items);
    free(least.items);
    return found;
}

/* Appends the fewest codes that make a whole document of what a machine has read. */
static int complete(Engine *engine, const Machine *from, Codes *out) {
    Machine *m = engine->machine2, *scratch = engine->machine3;
    engine->explored = NULL;
    copy_machine(m, from);
    while (!m->is_closed) {
        size_t start_of_rest = out->count;
        copy_machine(scratch, m);
        if (!put_rest(scratch, out)) return 0;
        if (walk(m, out->items + start_of_rest, out->count - start_of_rest) != out->count - start_of_rest) return 0;
    }
    return 1;
}

/* ---- masks: which tokens are legal ----

   A token is a string of codes that may begin inside one value and end inside another. So we ask of a value without its
   surroundings (a frame): which strings end inside it, and where in the trie of all strings has it ended, with some rest
   of the string still to be read outside? These facts about a frame are remembered, by what tells it from others. A mask
   follows from them and, for the strings that leave the frame, from the masks of what is around it: a string is legal if
   its rest is. The rests of all tokens are strings of the trie too. (Masks that are split into a part that depends on the
   innermost rule alone and one that asks the stack: Dong et al., "XGrammar", 2024, section 3.1.)

   Keys of any name are different in each document, and seldom matter to a string. The facts leave them out where any
   name can be gone on with, and the strings that would write one of them again are taken out of the mask. */

/* Whether an object in a frame may have more keys of any name, with the key on top of it if there is one, and whatever a
   string writes of one, others lead on: then it does not matter which there are. */
static int is_open_named(const Machine *m, uint32_t frame) {
    const Node *node = m->frames[frame].node;
    int is_key = frame + 1 < m->count && m->frames[frame + 1].kind == KEY_FRAME, is_open = 1;
    for (uint32_t i = 0; i < node->additional_count; i++) {
        const Automaton *a = &m->engine->automata[node->additional[i].automaton];
        is_open &= a->room[0] > a->longest_run;
    }
    for (size_t i = 0; i < (is_key ? m->configs.count : 0); i++) {
        const Config *c = &m->configs.items[i];
        const Automaton *a = &m->engine->automata[c->automaton];
        is_open &= c->stack != 0 || a->room[c->state] > a->longest_run;
    }
    return is_open;
}

static uint32_t mask_words(const Trie *trie) { return trie->string_count / 64 + 1; }

static const uint16_t *path_of(const Trie *trie, uint32_t node, uint32_t *length) {
    *length = node_at(trie, node)->depth;
    return trie->text.items + trie->path.items[node_at(trie, node)->place];
}

static void put_config_key(Bytes *key, const Machine *m, const Config *c) {
    int is_far = is_far_from_limits(m, c);
    uint32_t parts[] = {c->which, c->automaton, is_far ? m->engine->automata[c->automaton].alike[c->state] : c->state, is_far ? 0 : c->units};
    append(key, (const uint8_t *)parts, sizeof parts);
    *push(key) = is_strict(m) && c->last_end != c->last_begin; /* there is an owner of names */
    for (uint32_t at = c->stack; at != 0; at = m->stack.items[at].below) {
        uint32_t call[] = {m->stack.items[at].automaton, m->stack.items[at].state};
        append(key, (const uint8_t *)call, sizeof call);
    }
    *push(key) = 0xFF;
}

/* Strings in the text or key on top of a machine, which one of its automata reads. */
typedef struct {
    Machine *m;
    const Trie *trie;
    int is_closed_key; /* only some names are left for the key */
    TextFacts found;   /* its pauses are those that are still to be read; its strings have gone to `inside` of the facts */
} Reader;

/* Whether an automaton decides alone about what it reads. */
static int reads_alone(Machine *m, const Config *c) {
    uint32_t kind = is_strict(m) ? m->engine->automata[c->automaton].names : 0;
    return (kind == 0 || notes_conditions(m) || kind_to_find(m, kind) == 0) && is_far_from_limits(m, c);
}

static void read_text(Reader *r, uint32_t node, const Config *c);

static void note_inside(Engine *engine, uint32_t node) { /* a string that ends there, if one does, does so in the frame */
    uint32_t string = node_at(engine->trie, node)->string_plus_1;
    if (string) set_bit(engine->explored->inside, string - 1);
}

static void read_child(Reader *r, uint32_t child, const Config *c) {
    Machine *m = r->m;
    size_t stacked = m->stack.count, length = m->names.count;
    uint32_t code = node_at(r->trie, child)->code;
    Config next = *c;
    m->engine->reading = child;
    m->at = (uint32_t)length - m->partial;
    if (code > 255) {
        if (code == END && accepts_end(m, c)) *push(&r->found.ends) = child;
        return;
    }
    if (is_strict(m) || r->is_closed_key) *push(&m->names) = (uint8_t)code;
    if (move(m, &next, code) && (!r->is_closed_key || spell(m, m->count - 2, &next, NULL))) {
        note_inside(m->engine, child);
        if (has_children(r->trie, child)) read_text(r, child, &next);
    }
    m->names.count = length;
    m->stack.count = stacked;
}

typedef struct { /* what the facts about an automaton's strings are remembered by */
    uint32_t shape, state, node, is_strict, is_called;
} TextKey;
enum { MANY_NODES = 500 }; /* below a node: what is found out about their strings is kept */

static const TextFacts *text_facts_of(Engine *engine, const Automaton *a, TextKey key);

static void add_text_facts(TextFacts *to, const TextFacts *from) {
    append(&to->strings, from->strings.items, from->strings.count);
    append(&to->ends, from->ends.items, from->ends.count);
    append(&to->pauses, from->pauses.items, from->pauses.count);
}

/* Reads the strings below a node of the trie, as far as that is the automaton's own matter. */
static void read_alone(Engine *engine, TextFacts *facts, const Automaton *a, TextKey key) {
    const uint8_t *accepting = a->accepting[key.is_strict], *entries = a->entry[key.is_strict];
    const TrieNode *nodes = engine->trie->nodes.items;
    uint32_t states[MAX_TOKEN + 1], first = nodes[key.node].depth; /* states: on the way to a node */
    states[0] = key.state;
    for (uint32_t node = key.node + 1, next_node, end = nodes[key.node].end; node < end; node = next_node) {
        const TrieNode *here = &nodes[node];
        uint32_t depth = here->depth - first, state = states[depth - 1];
        int may_return = key.is_called && accepting[state];
        next_node = here->end;
        if (here->code > 255) {
            if (here->code == END && may_return) *push(&facts->pauses) = (Pause){node, state};
            else if (here->code == END && accepting[state]) *push(&facts->ends) = node;
            continue;
        }
        uint32_t next = a->following[state * a->class_count + a->classes[here->code]];
        uint32_t entry = next == 0 ? NEVER : next > a->state_count ? ASK : entries[next - 1];
        if (entry == ASK || (entry == NEVER && may_return)) *push(&facts->pauses) = (Pause){node, state};
        if (entry != ALWAYS) continue;
        if (here->string_plus_1) *push(&facts->strings) = here->string_plus_1 - 1;
        if (next_node - node > MANY_NODES) {
            add_text_facts(facts, text_facts_of(engine, a, (TextKey){key.shape, a->alike[next - 1], node, key.is_strict, key.is_called}));
        } else {
            states[depth] = next - 1;
            next_node = node + 1;
        }
    }
}

static const TextFacts *text_facts_of(Engine *engine, const Automaton *a, TextKey key) {
    uint32_t *number = map_value(&engine->text_facts, &key, sizeof key);
    if (*number != 0) return engine->texts.items[*number - 1];
    TextFacts *facts = *push(&engine->texts) = allocate(1, sizeof *facts);
    *number = (uint32_t)engine->texts.count;
    read_alone(engine, facts, a, key);
    engine->remembered += sizeof *facts + sizeof key + 4 * (facts->strings.count + facts->ends.count + 2 * facts->pauses.count);
    if (key.node == 0) {
        facts->inside = allocate(mask_words(engine->trie), sizeof *facts->inside);
        for (size_t i = 0; i < facts->strings.count; i++) set_bit(facts->inside, facts->strings.items[i]);
        facts->strings.count = 0;
        engine->remembered += mask_words(engine->trie) * sizeof *facts->inside;
    }
    return facts;
}

static void read_pauses(Reader *r, size_t first, uint32_t node, const Config *from);

/* Reads the strings below a node of the trie. */
static void read_text(Reader *r, uint32_t node, const Config *c) {
    Engine *engine = r->m->engine;
    const Automaton *a = &engine->automata[c->automaton];
    uint32_t end = node_at(r->trie, node)->end;
    if (r->is_closed_key || !reads_alone(r->m, c)) {
        for (uint32_t child = node + 1; child < end && node_at(r->trie, child)->code <= END; child = node_at(r->trie, child)->end) {
            read_child(r, child, c);
        }
        return;
    }
    TextKey key = {a->shape, a->alike[c->state], node, is_strict(r->m), c->stack != 0};
    uint64_t *inside = engine->explored->inside;
    size_t first = r->found.pauses.count;
    if (end - node > MANY_NODES) {
        const TextFacts *known = text_facts_of(engine, a, key);
        for (uint32_t word = 0; known->inside && word < mask_words(r->trie); word++) inside[word] |= known->inside[word];
        add_text_facts(&r->found, known);
    } else {
        read_alone(engine, &r->found, a, key);
    }
    for (size_t i = 0; i < r->found.strings.count; i++) set_bit(inside, r->found.strings.items[i]);
    r->found.strings.count = 0;
    if (r->found.pauses.count > first) read_pauses(r, first, node, c);
    r->found.pauses.count = first;
}

/* Goes on where others decide than the automaton alone. After a return, that depends on the code only, not on what was
   read before, unless conditions depend on that. */
static void read_pauses(Reader *r, size_t first, uint32_t node, const Config *from) {
    enum { UNKNOWN, ILLEGAL, LEGAL, NOTED /* legal under conditions, which are noted each time */ };
    Machine *m = r->m;
    Engine *engine = m->engine;
    const Automaton *a = &engine->automata[from->automaton];
    size_t length = m->names.count, stacked = m->stack.count;
    int spells_name = is_strict(m) && a->names != 0;
    uint8_t known[END + 1] = {UNKNOWN};
    Config after[END]; /* a code; what it has called stays on the stack up to the end of this function */
    for (size_t i = first, end = r->found.pauses.count; i < end; i++) {
        Pause pause = r->found.pauses.items[i];
        uint32_t code = node_at(r->trie, pause.node)->code, path_length;
        int returns = code == END || a->following[pause.state * a->class_count + a->classes[code]] == 0;
        if (engine->explored->is_volatile && spells_name) known[code] = UNKNOWN; /* the name may be an owner's */
        if (returns && known[code] == ILLEGAL) continue;
        Config c = *from;
        c.state = pause.state;
        const uint16_t *path = path_of(r->trie, pause.node, &path_length);
        for (uint32_t j = node_at(r->trie, node)->depth; is_strict(m) && j + 1 < path_length; j++) *push(&m->names) = (uint8_t)path[j];
        m->at = (uint32_t)m->names.count - m->partial;
        engine->reading = pause.node;
        if (!returns) {
            read_child(r, pause.node, &c);
        } else if (code == END) {
            known[code] = known[code] == LEGAL || accepts_end(m, &c) ? LEGAL : ILLEGAL;
            if (known[code] == LEGAL) *push(&r->found.ends) = pause.node;
        } else {
            if (is_strict(m)) *push(&m->names) = (uint8_t)code;
            if (known[code] != LEGAL) {
                size_t conditions = engine->explored->conditions.count;
                after[code] = c;
                known[code] = !move(m, &after[code], code) ? ILLEGAL : conditions == engine->explored->conditions.count ? LEGAL : NOTED;
                if (after[code].begin != from->begin) after[code].begin = UINT32_MAX; /* a call has begun here */
            }
            if (known[code] != ILLEGAL) note_inside(engine, pause.node);
            if (known[code] != ILLEGAL && has_children(r->trie, pause.node)) {
                c = after[code];
                if (c.begin == UINT32_MAX) c.begin = m->at;
                if (spells_name && c.last_end != 0) c.last_end = m->at;
                read_text(r, pause.node, &c);
            }
        }
        m->names.count = length;
    }
    m->stack.count = stacked;
}

static void free_text_facts(TextFacts *facts) {
    free(facts->strings.items);
    free(facts->inside);
    free(facts->ends.items);
    free(facts->pauses.items);
}

static void free_facts(Facts *facts) {
    for (size_t i = 0; i < facts->exits.count; i++) free(facts->exits.items[i].nodes.items);
    void *all[] = {facts->exits.items, facts->later.items, facts->later_names.items, facts->known_keys.items,
                   facts->conditions.items, facts->own.items, facts->barred.items, facts->inside};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void note_exit(Facts *facts, Mask accepted, uint32_t node) {
    size_t i = 0;
    while (i < facts->exits.count && memcmp(&facts->exits.items[i].accepted, &accepted, sizeof accepted) != 0) i++;
    if (i == facts->exits.count) *push(&facts->exits) = (Exit){accepted, {0}};
    *push(&facts->exits.items[i].nodes) = node;
}

/* Notes that strings below a node have written a key of the frame, or a text that must be another one than others. */
static void note_later(Engine *engine, Facts *facts, uint32_t node, uint32_t kind, const uint8_t *name, uint32_t length) {
    uint32_t first = 0, start = (uint32_t)facts->later_names.count, path_length;
    const uint16_t *path = path_of(engine->trie, node, &path_length);
    for (; first < path_length && path[first] < 256; first++) *push(&facts->later_names) = (uint8_t)path[first];
    append(&facts->later_names, name, length);
    *push(&facts->later) = (LaterKey){node, hash_of_name(engine, name, length), kind, start, first, length};
}

static Machine *next_walker(Engine *engine, uint32_t level) { /* as the one of a level, to be moved on */
    Machine **next = &engine->walkers[level + 1];
    if (*next == NULL) *next = new_machine(engine);
    copy_machine(*next, engine->walkers[level]);
    return *next;
}

static void explore(Engine *engine, Facts *facts, uint32_t level, uint32_t node, uint32_t barred);

static void visit(Engine *engine, Facts *facts, uint32_t level, uint32_t node) { /* the machine of a level has read its path */
    const Machine *m = engine->walkers[level];
    if (m->is_closed) {
        note_exit(facts, m->accepted, node);
    } else {
        note_inside(engine, node);
        if (has_children(engine->trie, node)) explore(engine, facts, level, node, 0);
    }
}

typedef struct {
    uint32_t node, which; /* which: of the configurations, the first that ends there */
    Mask accepted;        /* alternatives of a text or number */
} Ending;

/* Whether the conditions from one on, which the automata of a text have noted, hold for all of them that read so far. */
static int hold_for_all(Reader *r, uint32_t node, size_t first) {
    Machine *m = r->m;
    Facts *facts = m->engine->explored;
    size_t count = facts->conditions.count, length = m->names.count, stacked = m->stack.count;
    int are_shared = 1;
    for (size_t i = first; i < count && are_shared; i++) {
        Condition condition = facts->conditions.items[i];
        uint32_t path_length, config = condition.config;
        const uint16_t *path = path_of(r->trie, condition.node, &path_length);
        for (condition.config = 0; condition.config < m->configs.count && are_shared; condition.config++) {
            size_t same = condition.config == config ? count : first;
            while (same < count && memcmp(&facts->conditions.items[same], &condition, sizeof condition) != 0) same++;
            if (same < count || condition.config == config) continue;
            Config c = m->configs.items[condition.config];
            uint32_t at = node_at(r->trie, node)->depth;
            for (; at < path_length; at++) {
                m->at = (uint32_t)m->names.count - m->partial;
                *push(&m->names) = (uint8_t)path[at];
                if (!move(m, &c, path[at])) break;
            }
            are_shared = at < path_length;
            m->names.count = length;
            m->stack.count = stacked;
        }
    }
    facts->conditions.count = count;
    return are_shared;
}

/* Reads the strings below a node of the trie, which stands in the text or key on top of the machine of a level. */
static void explore_text(Engine *engine, Facts *facts, uint32_t level, uint32_t node) {
    Machine *m = engine->walkers[level], *next = NULL;
    const Trie *trie = engine->trie;
    const Frame *f = top_of(m);
    int is_key = f->kind == KEY_FRAME, is_closed_key = is_key && !is_open_named(m, m->count - 2), is_right = 0;
    const Definition *definition = is_key ? &f->node->defines_keys : &f->node->defines_text;
    int defines = definition->kind && (is_key || f->length) && (is_strict(m) || must_be_unique(m, definition));
    defines |= is_strict(m) && f->node->implies;
    int is_same_after_all = !defines && (!is_key || m->has_loose_key); /* whatever the text was */
    VECTOR(Ending) endings = {0};
    Reader reader = {.m = m, .trie = trie, .is_closed_key = is_closed_key};
    size_t conditions = facts->conditions.count;
    engine->text_start = (int32_t)node_at(trie, node)->depth - (int32_t)(m->names.count - m->partial);
    for (uint32_t i = 0; i < m->configs.count; i++) {
        Config c = m->configs.items[i];
        uint32_t kind = is_strict(m) ? engine->automata[c.automaton].names : 0;
        engine->config = i;
        engine->reading = node;
        if (kind && kind_to_find(m, kind) && notes_conditions(m)) {
            Wanted w = wanted_by(m, &c, kind_to_find(m, kind), (uint32_t)m->names.count - m->partial);
            note_condition(m, &c, &w, 0);
        }
        reader.found.ends.count = 0;
        read_text(&reader, node, &c);
        for (size_t j = 0; j < reader.found.ends.count; j++) {
            uint32_t end = reader.found.ends.items[j], *mark = &engine->marks.items[end];
            if (m->configs.count == 1 || *mark >= endings.count || endings.items[*mark].node != end) {
                *mark = (uint32_t)endings.count;
                *push(&endings) = (Ending){end, i, {0}};
            }
            if (!is_key) add(&endings.items[*mark].accepted, c.which);
        }
    }
    if (m->configs.count > 1 && notes_conditions(m)) facts->is_volatile |= !hold_for_all(&reader, node, conditions);
    engine->reading = 0;
    for (size_t i = 0; i < endings.count; i++) {
        const Ending *ending = &endings.items[i], *last = &endings.items[i ? i - 1 : 0];
        uint32_t length, from = node_at(trie, node)->depth;
        const uint16_t *path = path_of(trie, ending->node, &length);
        uint8_t name[MAX_TOKEN];
        for (uint32_t j = from; j + 1 < length && (is_key || !is_same_after_all); j++) name[j - from] = (uint8_t)path[j];
        int is_last = !has_children(trie, ending->node) && !must_be_unique(m, definition); /* nothing depends on its name */
        if (is_last && is_key && !m->has_loose_key &&
            (is_known(engine, f->node, name, length - 1 - from) || is_taken(m, m->count - 2, name, length - 1 - from))) {
            continue;
        }
        if (i == 0 || !(is_same_after_all || is_last) || ending->which != last->which || memcmp(&ending->accepted, &last->accepted, sizeof last->accepted)) {
            next = next_walker(engine, level);
            if (!is_same_after_all) append(&next->names, name, length - 1 - from);
            engine->noted_kind = 0;
            engine->text_end = length;
            is_right = is_key ? finish_key(next, m->configs.items[ending->which].which) : finish_text(next, ending->accepted);
            if (is_right && engine->noted_kind) {
                note_later(engine, facts, ending->node, engine->noted_kind, engine->noted.items, (uint32_t)engine->noted.count);
            }
        }
        if (!is_right) continue;
        if (is_key && m->count == 2 && node != 0) note_later(engine, facts, ending->node, 0, name, length - 1 - from);
        visit(engine, facts, level + 1, ending->node);
    }
    free(endings.items);
    free_text_facts(&reader.found);
}

static int may_come(const Machine *m, const Frame *f, uint32_t code) { /* a code of structure, as far as is quickly seen */
    uint32_t index = 0;
    if (f->kind == ARRAY_FRAME) return code == ARRAY_END;
    if (f->kind == OBJECT_FRAME) {
        return code == OBJECT_END || (code >= FIRST_LITERAL && find_known(f->node, code - FIRST_LITERAL, &index) && !is_present(m, f, index));
    }
    return code < FIRST_LITERAL || (!f->node->text_count && find_literal(f->node->members, f->node->member_slots, code - FIRST_LITERAL));
}

/* Reads the strings below a node of the trie, from where the machine of a level is; `barred`: none that begin so. */
static void explore(Engine *engine, Facts *facts, uint32_t level, uint32_t node, uint32_t barred) {
    const Trie *trie = engine->trie;
    Machine *m = engine->walkers[level], *next;
    const Frame *f = top_of(m);
    if (!has_children(trie, node) || level + 3 > MAX_LEVELS) return;
    int has_text = node_at(trie, node + 1)->code <= END;
    if (f->kind == SCALAR || f->kind == KEY_FRAME) {
        if (has_text) explore_text(engine, facts, level, node);
        return;
    }
    if (f->kind == ARRAY_FRAME) {
        next = next_walker(engine, level);
        if (begin_item(next)) explore(engine, facts, level + 1, node, ARRAY_END);
    } else if (has_text && (f->kind == OBJECT_FRAME ? f->node->additional_count : f->node->text_count)) {
        next = next_walker(engine, level);
        int is_open = f->kind == OBJECT_FRAME ? open_key(next) : open_scalar(next, f->node->texts, f->node->text_count, 1);
        if (is_open) explore_text(engine, facts, level + 1, node);
    }
    for (uint32_t child = node + 1; child < node_at(trie, node)->end; child = node_at(trie, child)->end) {
        uint32_t code = node_at(trie, child)->code;
        if (code <= END || code == barred || !may_come(m, f, code)) continue;
        next = next_walker(engine, level);
        if (!step(next, code)) continue;
        if (code >= FIRST_LITERAL && f->kind == OBJECT_FRAME && m->count == 1) {
            KnownKey *known = push(&facts->known_keys);
            find_known(f->node, code - FIRST_LITERAL, &known->index);
            known->node = child;
        }
        if (f->node->has_cases && code >= FIRST_LITERAL && f->kind == OBJECT_FRAME && m->count == 1) {
            const Literal *literal = &engine->literals[code - FIRST_LITERAL];
            note_later(engine, facts, child, 0, literal->bytes, (uint32_t)literal->length);
        }
        visit(engine, facts, level + 1, child);
    }
}

static void put_frame_key(Bytes *key, const Machine *m, const Frame *f, uint32_t depth) {
    uint64_t length = f->length < f->node->count_bound ? f->length : f->node->count_bound;
    append(key, (const uint8_t *)&f->node->number, sizeof f->node->number);
    append(key, (const uint8_t *)&f->alive, (f->node->alternative_count + 63) / 64 * 8);
    if (f->kind == VALUE || f->kind == SCALAR) length = 0;
    append(key, (const uint8_t *)&length, sizeof length);
    append(key, (const uint8_t *)&depth, sizeof depth);
    if (f->kind != OBJECT_FRAME) return;
    *push(key) = m->missing_jobs && f->node->defines_keys.kind == m->engine->graph_keys;
    for (uint32_t i = 0; i < f->node->known_words; i++) { /* of the others only themselves: see KnownKey */
        uint64_t word = m->words.items[f->first_word + i] & f->node->required[i];
        append(key, (const uint8_t *)&word, sizeof word);
    }
}

/* The names of the object in a frame, one after the other. */
static const Entry *next_entry(const Machine *m, uint32_t frame, size_t *at) {
    for (; *at < m->entries.count; ++*at) {
        if (m->entries.items[*at].frame == frame) return &m->entries.items[(*at)++];
    }
    return NULL;
}

static int by_hash(const void *left, const void *right) {
    const LaterKey *a = left, *b = right;
    return a->hash < b->hash ? -1 : a->hash > b->hash;
}

/* What the strings from a frame on depend on of the names of a document, with conditions alone or all of them. */
static void copy_names(Machine *walker, const Machine *m, uint32_t base, int are_needed) {
    walker->open_kinds = m->open_kinds;
    walker->missing_jobs = m->missing_jobs;
    if (!are_needed && !m->missing_jobs) return;
    walker->is_owner_needed = m->is_owner_needed;
    copy_vector(&walker->needs, &m->needs);
    walker->owner_start = m->owner_start;
    walker->owner_length = are_needed ? m->owner_length : 0;
    copy_vector(&walker->known, &m->known);
    copy_vector(&walker->known_bytes, &m->known_bytes);
    for (size_t i = 0; i < walker->known.count; i++) {
        uint32_t *pending = &walker->known.items[i].pending;
        if (*pending != 0) *pending = *pending / 2 - 1 == base ? 2 + *pending % 2 : UINT32_MAX; /* of a frame further out */
    }
}

/* Finds the last of all facts: about a frame, with the key on top of it if there is one. */
static void find_facts(Machine *m, uint32_t base, uint32_t top, uint32_t depth, int names_count) {
    Engine *engine = m->engine;
    const Trie *trie = engine->trie;
    const Frame *f = &m->frames[base];
    Facts *facts = &engine->facts.items[engine->facts.count - 1];
    int is_key = top > base;
    facts->inside = allocate(mask_words(trie), sizeof *facts->inside);
    if (engine->walkers[0] == NULL) engine->walkers[0] = new_machine(engine);
    if (engine->marks.count == 0) {
        reserve(&engine->marks, trie->node_count);
        engine->marks.count = trie->node_count;
        memset(engine->marks.items, 0, trie->node_count * sizeof *engine->marks.items);
    }
    Machine *walker = engine->walkers[0];
    walker->mode = m->mode;
    clear_machine(walker);
    copy_names(walker, m, base, facts->is_volatile);
    walker->depth = depth;
    walker->frames[0] = *f;
    walker->frames[0].around_count = 0;
    walker->count = 1;
    if (walker->known.count == 0) walker->frames[0].first_name = 0;
    walker->frames[0].first_word = walker->frames[0].first_entry = 0;
    for (uint32_t i = 0; i < (f->kind == OBJECT_FRAME ? f->node->known_words : 0); i++) {
        *push(&walker->words) = m->words.items[f->first_word + i] & f->node->required[i];
    }
    int defines_unique = f->kind == SCALAR && f->length && must_be_unique(m, &f->node->defines_text);
    if (is_key || f->kind == SCALAR) {
        copy_vector(&walker->configs, &m->configs);
        copy_vector(&walker->stack, &m->stack);
        if (m->mode != LENIENT && !names_count) append(&walker->names, m->names.items + m->partial, m->names.count - m->partial);
    }
    if (names_count) {
        size_t at = f->first_entry;
        for (const Entry *entry; (entry = next_entry(m, base, &at)) != NULL;) {
            append(&walker->names, m->names.items + entry->start, entry->length);
            add_entry(walker, 0);
        }
        if (is_key) append(&walker->names, m->names.items + m->partial, m->names.count - m->partial);
    }
    if (is_key) walker->frames[walker->count++] = *top_of(m);
    walker->has_loose_key = (uint32_t)((is_key && !names_count) || defines_unique);
    engine->explored = facts;
    engine->reading = 0;
    engine->names_before = walker->known.count;
    explore(engine, facts, 0, 0, 0);
    engine->explored = NULL;
    if (facts->later.count) qsort(facts->later.items, facts->later.count, sizeof *facts->later.items, by_hash);
}

/* The facts about a frame, with the key on top of it if there is one. Returns their number. */
static uint32_t facts_of(Machine *m, uint32_t base, uint32_t top) {
    Engine *engine = m->engine;
    const Trie *trie = engine->trie;
    const Frame *f = &m->frames[base];
    int is_container = f->kind == OBJECT_FRAME || f->kind == ARRAY_FRAME;
    int is_key = top > base, names_count = f->kind == OBJECT_FRAME && !is_open_named(m, base);
    uint32_t depth = base + (uint32_t)is_container;
    if (depth + trie->longest + 1 < MAX_DEPTH) depth = (uint32_t)is_container;
    Bytes *key = &engine->key;
    key->count = 0;
    *push(key) = (uint8_t)(f->kind | is_key << 3 | is_strict(m) << 4 | (m->mode == STRICT) << 5);
    put_frame_key(key, m, f, depth);
    for (size_t i = 0; i < (is_key || f->kind == SCALAR ? m->configs.count : 0); i++) {
        put_config_key(key, m, &m->configs.items[i]);
    }
    if (names_count) {
        size_t at = f->first_entry;
        for (const Entry *entry; (entry = next_entry(m, base, &at)) != NULL;) {
            append(key, (const uint8_t *)&entry->length, sizeof entry->length);
            append(key, m->names.items + entry->start, entry->length);
        }
        if (is_key) append(key, m->names.items + m->partial, m->names.count - m->partial);
    }
    if (is_strict(m)) append(key, (const uint8_t *)&m->open_kinds, sizeof m->open_kinds);
    uint32_t known = map_get(&engine->frame_facts, key->items, key->count);
    if (known != 0) return known - 1;
    *push(&engine->facts) = (Facts){0};
    uint32_t number = (uint32_t)engine->facts.count;
    find_facts(m, base, top, depth, names_count);
    Facts *facts = &engine->facts.items[number - 1];
    if (facts->is_volatile) {
        free_facts(facts);
        *facts = (Facts){.is_volatile = 1};
        find_facts(m, base, top, depth, names_count);
    } else {
        *map_value(&engine->frame_facts, key->items, key->count) = number;
    }
    engine->remembered += mask_words(trie) * 8 + key->count + facts->conditions.count * sizeof(Condition);
    for (size_t i = 0; i < facts->exits.count; i++) engine->remembered += 4 * facts->exits.items[i].nodes.count + sizeof(Exit);
    return number - 1;
}

static uint32_t intern_mask(Engine *engine, uint64_t *bits) { /* which it takes */
    uint32_t words = mask_words(engine->trie);
    uint32_t *known = map_value(&engine->mask_contents, bits, words * sizeof *bits);
    if (*known == 0) {
        *push(&engine->masks) = bits;
        *push(&engine->packed) = NULL;
        *known = (uint32_t)engine->masks.count;
        engine->remembered += 3 * words * sizeof *bits;
    } else {
        free(bits);
    }
    return *known - 1;
}

static uint32_t mask_with_end(Engine *engine, int has_end) { /* nothing may follow; or nothing is legal at all */
    uint32_t *known = &engine->ends_plus_1[has_end];
    if (*known != 0) return *known - 1;
    uint64_t *bits = allocate(mask_words(engine->trie), sizeof *bits);
    if (has_end) set_bit(bits, engine->trie->string_count);
    *known = intern_mask(engine, bits) + 1;
    return *known - 1;
}

/* Collects the nodes of the trie that bytes and END lead to, in any case of letters where that does not count. */
static void find_spellings(const Engine *engine, const uint8_t *name, size_t length, uint32_t node, Numbers *found) {
    for (; length > 0; name++, length--) {
        uint8_t small = folded(*name);
        if (engine->ignores_key_case && small >= 'a' && small <= 'z') {
            uint32_t large = child_of(engine->trie, node, small ^ 32);
            if (large != 0) find_spellings(engine, name + 1, length - 1, large, found);
            node = child_of(engine->trie, node, small);
        } else {
            node = child_of(engine->trie, node, *name);
        }
        if (node == 0) return;
    }
    node = child_of(engine->trie, node, END);
    if (node != 0) *push(found) = node;
}

/* Collects the nodes of the trie below which strings write a key that the object in a frame has. */
static void find_taken(Machine *m, uint32_t base, uint32_t top, const Facts *facts, Numbers *found) {
    const Engine *engine = m->engine;
    const Node *node = m->frames[base].node;
    int is_key = top > base;
    const uint8_t *text = m->names.items + m->partial;
    size_t prefix = is_key ? m->names.count - m->partial : 0, at = m->frames[base].first_entry;
    for (const Entry *entry; (entry = next_entry(m, base, &at)) != NULL;) {
        const uint8_t *name = m->names.items + entry->start;
        if (entry->length < prefix || !same_name(name, text, prefix, engine->ignores_key_case)) continue;
        find_spellings(engine, name + prefix, entry->length - prefix, 0, found);
    }
    for (uint32_t i = 0; i < (is_key ? node->known_count : 0); i++) {
        const Literal *literal = &engine->literals[node->keys[i].literal];
        if (literal->length < prefix || memcmp(literal->bytes, text, prefix) != 0) continue;
        uint32_t leads_to = 0;
        for (size_t j = prefix; j < literal->length && (j == prefix || leads_to); j++) {
            leads_to = child_of(engine->trie, leads_to, literal->bytes[j]);
        }
        if (leads_to == 0 && literal->length > prefix) continue;
        leads_to = child_of(engine->trie, leads_to, END);
        if (leads_to != 0) *push(found) = leads_to;
    }
    for (size_t i = 0; i < (is_key ? facts->later.count : 0); i++) { /* the key that is being written may come again */
        const LaterKey *later = &facts->later.items[i];
        const uint8_t *first = facts->later_names.items + later->start, *name = first + later->first_length;
        if (later->kind == 0 && later->length == prefix + later->first_length &&
            same_name(name, text, prefix, engine->ignores_key_case) &&
            same_name(name + prefix, first, later->first_length, engine->ignores_key_case)) {
            *push(found) = later->node;
        }
    }
}

static void find_later(const Machine *m, const Facts *facts, uint32_t kind, const uint8_t *name, uint32_t length, uint64_t hash, Numbers *found) {
    size_t low = 0, high = facts->later.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (facts->later.items[middle].hash < hash) low = middle + 1;
        else high = middle;
    }
    for (; low < facts->later.count && facts->later.items[low].hash == hash; low++) {
        const LaterKey *later = &facts->later.items[low];
        const uint8_t *written = facts->later_names.items + later->start + later->first_length;
        if (later->kind == kind && later->length == length && same_name(written, name, length, !kind && m->engine->ignores_key_case)) {
            *push(found) = later->node;
        }
    }
}

/* The same for keys that strings write when they have come back to the object, and for texts that must be unique. */
static void find_taken_later(Machine *m, uint32_t base, uint32_t top, const Facts *facts, Numbers *found) {
    const Frame *f = &m->frames[base];
    size_t at = f->first_entry;
    int has_text = top == base && base + 1 == m->count && f->kind == SCALAR && f->length && must_be_unique(m, &f->node->defines_text);
    if (f->kind == OBJECT_FRAME && is_open_named(m, base) && facts->later.count) {
        for (const Entry *entry; (entry = next_entry(m, base, &at)) != NULL;) {
            find_later(m, facts, 0, m->names.items + entry->start, entry->length, entry->hash, found);
        }
    }
    for (size_t i = 0; i < (has_text || facts->later.count ? m->known.count : 0); i++) {
        const Name *name = &m->known.items[i];
        const uint8_t *bytes = m->known_bytes.items + name->start;
        if (name->hash != 0) find_later(m, facts, name->kind, bytes, name->length, name->hash, found);
        uint32_t prefix = (uint32_t)m->names.count - m->partial, node = 0;
        if (!has_text || name->kind != f->node->defines_text.kind || name->length < prefix) continue;
        if (prefix && memcmp(bytes, m->names.items + m->partial, prefix) != 0) continue;
        for (uint32_t j = prefix; j < name->length && (j == prefix || node); j++) node = child_of(m->engine->trie, node, bytes[j]);
        if (node == 0 && name->length > prefix) continue;
        node = child_of(m->engine->trie, node, END);
        if (node != 0) *push(found) = node;
    }
}

/* Collects the nodes from one on that strings lead to which write no whole name, among some spans, and do not go on with
   one either. `length`: bytes of the names that were read so far. */
static void bar_below(Engine *engine, Facts *facts, const Automaton *a, uint32_t state, uint32_t node, size_t first, uint32_t length) {
    const Trie *trie = engine->trie;
    size_t end = engine->spans.count;
    int is_name = 0;
    for (size_t i = first; i < end; i++) is_name |= engine->spans.items[i].length == length;
    for (uint32_t child = node + 1; child < node_at(trie, node)->end; child = node_at(trie, child)->end) {
        uint32_t code = node_at(trie, child)->code, next = code < 256 ? a->following[state * a->class_count + a->classes[code]] : 0;
        if (code > END) break;
        if (next == 0 && is_name) continue; /* what follows the name is not its matter */
        for (size_t i = first; i < end && next != 0; i++) {
            struct Span span = engine->spans.items[i];
            if (span.length > length && span.bytes[length] == code) *push(&engine->spans) = span;
        }
        if (engine->spans.count > end) bar_below(engine, facts, a, next - 1, child, end, length + 1);
        else *push(&facts->barred) = child;
        engine->spans.count = end;
    }
}

static void append_text(Bytes *to, const Machine *m, uint32_t begin, uint32_t end) { /* a part of the text or key on top */
    if (begin < end) append(to, m->names.items + m->partial + begin, end - begin);
}

/* Appends a part of a string; where it begins before that, what stands from a place in the text on top on comes first. */
static void append_part(Bytes *to, const Machine *m, uint32_t from, const uint16_t *path, Part part) {
    if (part.begin < 0) append_text(to, m, from, (uint32_t)m->names.count - m->partial);
    for (int32_t i = part.begin < 0 ? 0 : part.begin; i < part.end; i++) *push(to) = (uint8_t)path[i];
}

/* Finds the nodes of the trie below which the conditions of facts allow no strings, with the present names. */
static void find_barred(Machine *m, Facts *facts) {
    Engine *engine = m->engine;
    const Trie *trie = engine->trie;
    Bytes *text = &m->implied_key;
    int depends_on_text = 0;
    if (facts->names_version == m->names_version) return;
    facts->barred.count = 0;
    for (size_t i = 0; i < facts->conditions.count; i++) {
        const Condition *condition = &facts->conditions.items[i];
        const Config *c = m->configs.count ? &m->configs.items[condition->config] : NULL;
        uint32_t length, node = condition->node;
        uint32_t barred = facts->barred.count ? facts->barred.items[facts->barred.count - 1] : 0;
        const uint16_t *path = path_of(trie, node, &length);
        if (barred && node >= barred && node < node_at(trie, barred)->end) continue;
        Wanted w = {.kind = condition->kind, .is_need = (int)condition->is_need, .speller = condition->speller};
        uint32_t own_count = 0;
        text->count = 0;
        if (condition->owner.end < 0) append_text(text, m, c->last_begin, c->last_end);
        else append_part(text, m, condition->owner.begin < 0 ? c->begin : 0, path, condition->owner);
        w.owner_length = (uint32_t)text->count;
        if (!condition->is_any) append_part(text, m, condition->begin < 0 ? c->begin : 0, path, (Part){condition->begin, (int32_t)length});
        w.length = (uint32_t)text->count - w.owner_length;
        engine->spans.count = 0;
        for (uint32_t j = 0; j < condition->own_count; j++) {
            Part own = facts->own.items[condition->own_start + j];
            size_t before = text->count;
            append_part(text, m, 0, path, own);
            *push(&engine->spans) = (struct Span){NULL, (uint32_t)(text->count - before)};
            depends_on_text |= own.begin < 0;
        }
        w.owner = text->items;
        w.text = text->items + w.owner_length;
        const uint8_t *own = w.text + w.length;
        int is_owner = w.kind != engine->owned_kind || m->owner_length == 0 ||
                       is_same_span(m->known_bytes.items + m->owner_start, m->owner_length, w.owner, w.owner_length);
        for (uint32_t j = 0; j < condition->own_count; j++) {
            struct Span span = {own, engine->spans.items[j].length};
            if (is_owner && goes_on_as(m, &w, span.bytes, span.length) && is_spelled(m, w.speller, span.bytes, span.length)) engine->spans.items[own_count++] = span;
            own += span.length;
        }
        engine->spans.count = own_count;
        for (size_t j = 0; j < m->known.count; j++) {
            const Name *name = &m->known.items[j];
            if (name->kind != w.kind || !is_wanted(m, name, &w)) continue;
            *push(&engine->spans) = (struct Span){m->known_bytes.items + name->start, name->length};
            if (condition->is_any) break;
        }
        depends_on_text |= (condition->begin < 0 && !condition->is_any) || condition->owner.begin < 0;
        if (engine->spans.count == 0 && (condition->is_any || (condition->begin >= 0 && w.length))) *push(&facts->barred) = node;
        else if (!condition->is_any) bar_below(engine, facts, &engine->automata[w.speller - 1], condition->state, node, 0, w.length);
    }
    facts->names_version = depends_on_text ? 0 : m->names_version;
}

static uint32_t mask_at(Machine *m, uint32_t top);

/* The mask of what is around a frame that ends, accepted by some alternatives of its node. */
static uint32_t mask_around(Machine *m, uint32_t base, Mask accepted) {
    if (base == 0) return mask_with_end(m->engine, any(accepted));
    Around *around = &m->around[base];
    uint32_t *count = &m->frames[base].around_count;
    if (around->generation != m->engine->generation || around->names_version != m->names_version) *count = 0;
    for (uint32_t i = 0; i < *count; i++) {
        if (memcmp(&around->accepted[i], &accepted, sizeof accepted) == 0) return around->mask[i];
    }
    Frame *outer = &m->frames[base - 1], before = *outer;
    VECTOR(Name) known = {0};
    uint64_t open_kinds = m->open_kinds;
    uint64_t version = m->names_version;
    uint32_t kind = m->frames[base].kind;
    copy_vector(&known, &m->known);
    if (kind == OBJECT_FRAME || kind == ARRAY_FRAME) close_names(m, base);
    if (outer->kind == OBJECT_FRAME) finish_names(m, base - 1);
    uint32_t mask = finish_in(outer, accepted) ? mask_at(m, base - 1) : mask_with_end(m->engine, 0);
    before.around_count = outer->around_count;
    *outer = before;
    copy_vector(&m->known, &known);
    free(known.items);
    m->open_kinds = open_kinds;
    m->names_version = version;
    uint32_t place = *count < MAX_AROUND ? (*count)++ : 0;
    around->accepted[place] = accepted;
    around->mask[place] = mask;
    around->generation = m->engine->generation;
    around->names_version = m->names_version;
    return mask;
}

/* The number of the mask of a machine whose top is a frame, which need not be the last. */
static uint32_t mask_at(Machine *m, uint32_t top) {
    Engine *engine = m->engine;
    const Trie *trie = engine->trie;
    uint32_t base = m->frames[top].kind == KEY_FRAME ? top - 1 : top;
    uint32_t number = facts_of(m, base, top);
    Numbers parts = {0};
    *push(&parts) = number;
    size_t exits = engine->facts.items[number].exits.count;
    for (size_t i = 0; i < exits; i++) {
        uint32_t mask = mask_around(m, base, engine->facts.items[number].exits.items[i].accepted);
        *push(&parts) = mask;
    }
    Facts *facts = &engine->facts.items[number];
    find_barred(m, facts);
    append(&parts, facts->barred.items, facts->barred.count);
    for (size_t i = 0; i < facts->known_keys.count; i++) {
        KnownKey key = facts->known_keys.items[i];
        if (m->frames[base].kind == OBJECT_FRAME && is_present(m, &m->frames[base], key.index)) *push(&parts) = key.node;
    }
    if (m->frames[base].kind == OBJECT_FRAME && m->frames[base].node->additional_count && is_open_named(m, base)) {
        find_taken(m, base, top, facts, &parts);
    }
    find_taken_later(m, base, top, facts, &parts);
    uint32_t *known = map_value(&engine->mask_parts, parts.items, parts.count * sizeof *parts.items);
    if (*known == 0) {
        uint64_t *bits = allocate(mask_words(trie), sizeof *bits);
        memcpy(bits, facts->inside, mask_words(trie) * sizeof *bits);
        for (size_t i = 0; i < exits; i++) {
            const uint64_t *outer = engine->masks.items[parts.items[i + 1]];
            const Numbers *nodes = &facts->exits.items[i].nodes;
            for (size_t j = 0; j < nodes->count; j++) {
                uint32_t node = nodes->items[j];
                const Rest *rest = trie->rests.items + trie->rest_start.items[node];
                for (uint32_t left = strings_below(trie, node); left > 0; left--, rest++) {
                    if (bit_of(outer, rest->rest)) set_bit(bits, rest->string);
                }
            }
        }
        for (size_t i = exits + 1; i < parts.count; i++) {
            const uint32_t *strings = trie->order + node_at(trie, parts.items[i])->place;
            for (uint32_t left = strings_below(trie, parts.items[i]); left > 0; left--, strings++) {
                bits[*strings / 64] &= ~((uint64_t)1 << *strings % 64);
            }
        }
        set_bit(bits, trie->string_count);
        engine->remembered += parts.count * sizeof *parts.items + sizeof(Slot);
        *known = intern_mask(engine, bits) + 1;
    }
    uint32_t mask = *known - 1;
    free(parts.items);
    return mask;
}

static void forget_masks(Engine *engine) {
    for (size_t i = 0; i < engine->facts.count; i++) free_facts(&engine->facts.items[i]);
    for (size_t i = 0; i < engine->masks.count; i++) {
        free(engine->masks.items[i]);
        free(engine->packed.items[i]);
    }
    for (size_t i = 0; i < engine->texts.count; i++) {
        free_text_facts(engine->texts.items[i]);
        free(engine->texts.items[i]);
    }
    free_map(&engine->frame_facts);
    free_map(&engine->text_facts);
    free_map(&engine->mask_parts);
    free_map(&engine->mask_contents);
    engine->first_mask += (uint32_t)engine->masks.count;
    engine->facts.count = engine->texts.count = engine->masks.count = engine->packed.count = 0;
    engine->ends_plus_1[0] = engine->ends_plus_1[1] = 0;
    engine->remembered = 0;
    engine->generation++;
}

static uint32_t mask_of(Machine *m) { /* its place among the masks that are remembered */
    m->engine->explored = NULL;
    if (m->is_closed) return mask_with_end(m->engine, 1);
    if (m->mask_plus_1 == 0 || m->mask_generation != m->engine->generation) {
        m->mask_plus_1 = mask_at(m, m->count - 1) + 1;
        m->mask_generation = m->engine->generation;
    }
    return m->mask_plus_1 - 1;
}

static size_t packed_size(const Trie *trie) { return (trie->token_count + 7) / 8; }

static const uint8_t *packed_mask(Engine *engine, uint32_t mask) { /* a bit a token, the first in the highest bit */
    uint8_t **packed = &engine->packed.items[mask];
    if (*packed == NULL) {
        *packed = allocate(packed_size(engine->trie), 1);
        for (size_t i = 0; i < packed_size(engine->trie); i++) { /* bits the other way round */
            uint64_t byte = engine->masks.items[mask][i / 8] >> 8 * (i % 8) & 255;
            (*packed)[i] = (uint8_t)((byte * 0x0202020202u & 0x010884422010u) % 1023);
        }
        if (engine->trie->token_count % 8) (*packed)[packed_size(engine->trie) - 1] &= (uint8_t)(0xFF00 >> engine->trie->token_count % 8);
    }
    return *packed;
}

/* ---- loading: the numbers that engine.py has written ---- */

typedef struct {
    Engine *engine;
    const uint64_t *at;
    size_t left;
    uint32_t mask_words;
    Map shapes, runs; /* of automata; of the bytes that some read: how many of a token follow each other, + 1 */
} Loader;

static uint64_t take_number(Loader *loader, uint64_t largest) {
    if (loader->left == 0 || *loader->at > largest) longjmp(*way_out, 2);
    loader->left--;
    return *loader->at++;
}

static uint32_t take_count(Loader *loader) { /* of what takes a number each at least */
    return (uint32_t)take_number(loader, loader->left < UINT32_MAX / 64 ? loader->left : UINT32_MAX / 64);
}

static uint32_t take_index(Loader *loader, uint32_t count) {
    uint32_t index = (uint32_t)take_number(loader, count);
    if (index == count) longjmp(*way_out, 2);
    return index;
}

static Mask take_mask(Loader *loader) {
    Mask mask = {0};
    for (uint32_t i = 0; i < loader->mask_words; i++) mask[i] = take_number(loader, UINT64_MAX);
    return mask;
}

static void *keep(Loader *loader, size_t count, size_t size) { /* zeros, which are freed with the engine */
    Block *block = allocate(1, sizeof *block + (count < SIZE_MAX / 4 / size ? count * size : SIZE_MAX / 4));
    block->next = loader->engine->blocks;
    loader->engine->blocks = block;
    return block + 1;
}

static void load_literal(Loader *loader, uint32_t number) {
    Literal *literal = &loader->engine->literals[number];
    literal->length = take_count(loader);
    uint8_t *bytes = keep(loader, literal->length, 1), *quoted = keep(loader, 6 * literal->length + 2, 1);
    literal->bytes = bytes;
    literal->quoted = quoted;
    *quoted++ = '"';
    for (size_t i = 0; i < literal->length; i++) {
        bytes[i] = (uint8_t)take_number(loader, 255);
        quoted = write_byte(quoted, bytes[i]);
    }
    *quoted++ = '"';
    literal->quoted_length = (size_t)(quoted - literal->quoted);
    *map_value(&loader->engine->literal_numbers, bytes, literal->length) = number + 1;
}

static void load_automaton(Loader *loader, Automaton *a) {
    uint32_t states = a->state_count = take_count(loader), classes = a->class_count = (uint32_t)take_number(loader, 256);
    uint32_t calls = a->call_count = take_count(loader);
    a->names = (uint32_t)take_number(loader, 63);
    a->depth = (uint32_t)take_number(loader, MAX_CALL_DEPTH);
    if (a->names && !calls) loader->engine->speller[a->names] = (uint32_t)(a - loader->engine->automata) + 1;
    uint8_t *accepting = keep(loader, states, 1), *strict = keep(loader, states, 1), *is_lenient = keep(loader, states, 1);
    uint64_t *requires = keep(loader, states, sizeof *requires);
    if (states + calls > UINT16_MAX) longjmp(*way_out, 2);
    uint16_t *following = keep(loader, (size_t)states * classes, sizeof *following);
    Call *all_calls = keep(loader, calls, sizeof *all_calls);
    int seen[256] = {0}, order_count = 0;
    for (int byte = 0; byte < 256 && states; byte++) a->classes[byte] = (uint8_t)take_index(loader, classes);
    for (int i = 0; i < 256 && states; i++) {
        int byte = i < 26 ? 'a' + i : i < 'a' + 26 ? i - 26 : i; /* letters first */
        if (!seen[a->classes[byte]]) a->order[order_count++] = (uint8_t)byte;
        seen[a->classes[byte]] = 1;
    }
    for (uint32_t state = 0; state < states; state++) {
        uint16_t *row = following + (size_t)state * classes;
        accepting[state] = (uint8_t)take_number(loader, 1);
        strict[state] = (uint8_t)take_number(loader, 1);
        is_lenient[state] = (uint8_t)take_number(loader, 1);
        requires[state] = take_number(loader, INT64_MAX); /* kinds are below 63 here */
        for (uint32_t i = 0; i < classes; i++) row[i] = (uint16_t)take_number(loader, (uint64_t)states + calls);
    }
    for (uint32_t i = 0; i < calls; i++) {
        all_calls[i].callee = take_index(loader, loader->engine->automaton_count);
        all_calls[i].return_state = take_index(loader, states);
    }
    for (int i = order_count; i < (int)classes; i++) a->order[i] = a->order[0]; /* a class without bytes */
    a->accepting[0] = accepting;
    a->accepting[1] = strict;
    a->is_lenient = is_lenient;
    a->requires = requires;
    a->following = following;
    a->calls = all_calls;
}

typedef struct {
    uint32_t from, next; /* next: the place of another edge to the same state, + 1 */
    uint32_t call_plus_1, class;
} BackEdge;

/* Bytes of the shortest way through an automaton that begins with a byte. */
static uint32_t through(const Engine *engine, const Automaton *a, int mode, uint32_t left, uint32_t byte, int calls) {
    if (a->state_count == 0 || a->depth > left || calls > MAX_CALLS) return FAR;
    left -= a->depth;
    uint32_t row = left < a->row_count ? left : a->row_count - 1, next = a->following[a->classes[byte]];
    const uint32_t *distances = a->distance[mode] + (size_t)row * a->state_count;
    if (next == 0) return FAR;
    if (next <= a->state_count) return sum(1, distances[next - 1]);
    const Call *called = &a->calls[next - a->state_count - 1];
    return sum(through(engine, &engine->automata[called->callee], mode, left, byte, calls + 1), distances[called->return_state]);
}

/* Distances with `left` more levels of depth, from the accepting states backwards; whether some have changed. */
static int find_distances(const Engine *engine, Automaton *a, int mode, uint32_t left, const uint32_t *heads, const BackEdge *edges) {
    uint32_t *distances = a->distance[mode] + (size_t)left * a->state_count;
    int has_changed = 0;
    Numbers waiting = {0};
    uint8_t *waits = allocate(a->state_count, 1);
    uint8_t bytes[256]; /* in the order of their classes */
    uint32_t begins[256] = {0};
    for (uint32_t byte = 0; byte < 256; byte++) begins[a->classes[byte]]++;
    for (uint32_t class = 1; class < 256; class++) begins[class] += begins[class - 1];
    for (uint32_t byte = 256; byte-- > 0;) bytes[--begins[a->classes[byte]]] = (uint8_t)byte;
    for (uint32_t state = 0; state < a->state_count; state++) {
        if (a->accepting[mode][state]) distances[state] = 0;
        if (distances[state] == FAR) continue;
        *push(&waiting) = state;
        waits[state] = 1;
    }
    for (size_t at = 0; at < waiting.count; at++) { /* breadth first; with calls a state may come again */
        uint32_t state = waiting.items[at];
        waits[state] = 0;
        for (uint32_t i = heads[state]; i != 0; i = edges[i - 1].next) {
            const BackEdge *edge = &edges[i - 1];
            uint32_t cost = 1;
            if (mode && a->is_lenient[edge->from]) continue;
            if (edge->call_plus_1 != 0) {
                const Automaton *callee = &engine->automata[a->calls[edge->call_plus_1 - 1].callee];
                cost = FAR;
                for (uint32_t j = begins[edge->class]; j < 256 && a->classes[bytes[j]] == edge->class; j++) {
                    uint32_t here = through(engine, callee, mode, left, bytes[j], 0);
                    if (here < cost) cost = here;
                }
            }
            if (sum(cost, distances[state]) >= distances[edge->from]) continue;
            distances[edge->from] = sum(cost, distances[state]);
            has_changed = 1;
            if (!waits[edge->from]) *push(&waiting) = edge->from;
            waits[edge->from] = 1;
        }
    }
    free(waiting.items);
    free(waits);
    return has_changed;
}

static uint32_t longest_run(Loader *loader, const Automaton *a) {
    const Trie *trie = loader->engine->trie;
    uint32_t longest = 0;
    uint8_t reads[256] = {0}, is_read[256]; /* reads: by class */
    for (size_t cell = 0; cell < (size_t)a->state_count * a->class_count; cell++) reads[cell % a->class_count] |= a->following[cell] != 0;
    for (int byte = 0; byte < 256; byte++) is_read[byte] = reads[a->classes[byte]];
    uint32_t *known = map_value(&loader->runs, is_read, sizeof is_read);
    if (*known != 0) return *known - 1;
    for (uint32_t token = 0; token < trie->token_count; token++) {
        for (uint32_t i = trie->starts[token], run = 0; i < trie->starts[token + 1]; i++) {
            run = trie->text.items[i] < 256 && is_read[trie->text.items[i]] ? run + 1 : 0;
            if (run > longest) longest = run;
        }
    }
    *known = longest + 1;
    return longest;
}

/* Finds the states whose differences are further away than a token reaches: states that count bytes, mostly. */
static void find_alike(Loader *loader, Automaton *a) {
    uint32_t *alike = keep(loader, a->state_count, sizeof *alike), *next = allocate(a->state_count, sizeof *next);
    Bytes *key = &loader->engine->key;
    int counts_bytes = a->longest_run != 0, has_changed = counts_bytes;
    for (uint32_t state = 0; state < a->state_count; state++) alike[state] = counts_bytes ? 0 : state;
    for (uint32_t round = 0; has_changed && round <= a->longest_run; round++) { /* those that differ after so many bytes */
        Map rows = {0};
        for (uint32_t state = 0; state < a->state_count; state++) {
            uint64_t here[] = {alike[state], a->accepting[0][state], a->accepting[1][state], a->is_lenient[state], a->requires[state],
                               a->plenty[state] ? 0 : state + 1}; /* `spell` asks what is left where there is not plenty */
            key->count = 0;
            append(key, (const uint8_t *)here, sizeof here);
            for (uint32_t i = 0; i < a->class_count; i++) {
                uint32_t to = a->following[(size_t)state * a->class_count + i], callee = 0;
                if (to > a->state_count) {
                    callee = a->calls[to - a->state_count - 1].callee + 1;
                    to = a->calls[to - a->state_count - 1].return_state + 1;
                }
                if (to != 0) to = alike[to - 1] + 1;
                append(key, (const uint8_t *)&to, sizeof to);
                append(key, (const uint8_t *)&callee, sizeof callee);
            }
            uint32_t *number = map_value(&rows, key->items, key->count);
            if (*number == 0) *number = state + 1;
            next[state] = *number - 1;
        }
        has_changed = memcmp(alike, next, a->state_count * sizeof *alike) != 0;
        memcpy(alike, next, a->state_count * sizeof *alike);
        free_map(&rows);
    }
    a->alike = alike;
    free(next);
}

static void find_plenty(Loader *loader, Automaton *a, const uint32_t *heads, const BackEdge *edges) {
    /* of the states that lead to states of the set, again and again, those that lead to a cycle remain */
    uint8_t *endless = keep(loader, a->state_count, 1);
    uint32_t bytes[256] = {0}, *room = keep(loader, a->state_count, sizeof *room);
    uint64_t *strings = allocate(a->state_count, sizeof *strings); /* from a state that is not endless */
    for (int byte = 0; byte < 256; byte++) bytes[a->classes[byte]]++;
    uint32_t *ways = allocate(a->state_count, sizeof *ways);
    Numbers waiting = {0};
    for (uint32_t state = 0; state < a->state_count; state++) {
        for (uint32_t i = 0; i < a->class_count; i++) ways[state] += a->following[state * a->class_count + i] != 0;
        endless[state] = ways[state] != 0;
        if (!endless[state]) *push(&waiting) = state;
    }
    for (size_t at = 0; at < waiting.count; at++) { /* what a state leads to comes before it */
        uint32_t state = waiting.items[at];
        strings[state] += a->accepting[0][state] && a->accepting[1][state];
        for (uint32_t i = heads[state]; i != 0; i = edges[i - 1].next) {
            uint32_t from = edges[i - 1].from;
            if (!edges[i - 1].call_plus_1 && !a->is_lenient[state]) strings[from] += strings[state] * bytes[edges[i - 1].class];
            if (strings[from] > UINT32_MAX) strings[from] = UINT32_MAX;
            if (endless[from] && --ways[from] == 0) {
                endless[from] = 0;
                *push(&waiting) = from;
            }
        }
    }
    waiting.count = 0;
    for (uint32_t state = 0; state < a->state_count; state++) {
        endless[state] |= strings[state] >= UINT32_MAX;
        room[state] = UINT32_MAX;
        if (endless[state]) continue;
        room[state] = 0;
        *push(&waiting) = state;
    }
    for (size_t at = 0; at < waiting.count; at++) {
        for (uint32_t i = heads[waiting.items[at]]; i != 0; i = edges[i - 1].next) {
            uint32_t from = edges[i - 1].from;
            if (room[from] != UINT32_MAX) continue;
            room[from] = a->call_count ? 0 : room[waiting.items[at]] + 1; /* calls may go on for long, or be short */
            *push(&waiting) = from;
        }
    }
    a->plenty = endless;
    a->room = room;
    if (waiting.count > 0) a->longest_run = longest_run(loader, a);
    find_alike(loader, a);
    free(strings);
    free(waiting.items);
    free(ways);
}

static void study_automata(Loader *loader) {
    Engine *engine = loader->engine;
    uint32_t count = engine->automaton_count, rows = engine->max_call_depth + 1;
    uint32_t **heads = keep(loader, count, sizeof *heads);
    BackEdge **edges = keep(loader, count, sizeof *edges);
    for (uint32_t i = 0; i < count; i++) {
        Automaton *a = &engine->automata[i];
        size_t cells = (size_t)a->state_count * a->class_count, used = 0;
        heads[i] = keep(loader, a->state_count, sizeof **heads);
        edges[i] = keep(loader, cells, sizeof **edges);
        for (size_t cell = 0; cell < cells; cell++) {
            uint32_t next = a->following[cell], from = (uint32_t)(cell / a->class_count), call = 0;
            if (next == 0) continue;
            if (next > a->state_count) {
                call = next - a->state_count;
                next = a->calls[call - 1].return_state + 1;
            }
            edges[i][used] = (BackEdge){from, heads[i][next - 1], call, (uint32_t)(cell % a->class_count)};
            heads[i][next - 1] = (uint32_t)++used;
        }
        a->row_count = a->call_count ? rows : 1;
        size_t places = (size_t)a->state_count * a->row_count;
        for (int mode = 0; mode < 2; mode++) {
            a->distance[mode] = keep(loader, places, sizeof *a->distance[mode]);
            for (size_t place = 0; place < places; place++) a->distance[mode][place] = FAR;
            if (a->call_count == 0) find_distances(engine, a, mode, 0, heads[i], edges[i]);
        }
        find_plenty(loader, a, heads[i], edges[i]);
    }
    for (int mode = 0; mode < 2; mode++) {
        uint32_t same = 0; /* rows that are like the one before: further ones are, too */
        for (uint32_t left = 0; left < rows; left++) {
            for (int has_changed = 1; has_changed && same <= MAX_CALL_DEPTH;) {
                has_changed = 0;
                for (uint32_t i = 0; i < count; i++) {
                    if (engine->automata[i].call_count != 0) {
                        has_changed |= find_distances(engine, &engine->automata[i], mode, left, heads[i], edges[i]);
                    }
                }
            }
            int is_same = left > 0;
            for (uint32_t i = 0; i < count; i++) {
                const Automaton *a = &engine->automata[i];
                if (a->call_count == 0 || left == 0) continue;
                uint32_t *row = a->distance[mode] + (size_t)left * a->state_count;
                if (same > MAX_CALL_DEPTH) memcpy(row, row - a->state_count, a->state_count * sizeof *row);
                else is_same &= memcmp(row, row - a->state_count, a->state_count * sizeof *row) == 0;
            }
            same = is_same ? same + 1 : 0;
        }
    }
}

static void find_entries(Loader *loader, Automaton *a) {
    Bytes *key = &loader->engine->key;
    uint32_t states = a->state_count, *number;
    key->count = 0;
    for (int mode = 0; mode < 2; mode++) {
        const uint32_t *last = a->distance[mode] + (size_t)(a->row_count - 1) * states;
        a->entry[mode] = keep(loader, states, 1);
        a->is_total[mode] = 1;
        for (uint32_t state = 0; state < states; state++) {
            int is_dead = last[state] >= FAR || (mode && a->is_lenient[state]);
            a->entry[mode][state] = is_dead ? NEVER : mode && a->requires[state] && !a->names ? ASK : ALWAYS;
            a->is_total[mode] &= a->entry[mode][state] == ALWAYS;
            if (last[state] < FAR && last[state] > a->farthest[mode]) a->farthest[mode] = last[state];
        }
        uint32_t row = a->row_count - 1;
        while (row > 0 && !memcmp(a->distance[mode] + (size_t)(row - 1) * states, last, states * sizeof *last)) row--;
        a->steady[mode] = row;
        a->is_shallow[mode] = a->depth + row <= loader->engine->max_call_depth;
        append(key, a->entry[mode], states);
        append(key, a->accepting[mode], states);
    }
    append(key, (const uint8_t *)&a->state_count, sizeof a->state_count);
    append(key, (const uint8_t *)&a->call_count, sizeof a->call_count);
    append(key, a->classes, sizeof a->classes);
    append(key, (const uint8_t *)a->following, (size_t)states * a->class_count * sizeof *a->following);
    number = map_value(&loader->shapes, key->items, key->count);
    if (*number == 0) *number = (uint32_t)loader->shapes.count;
    a->shape = *number;
}

static void find_plain(Loader *loader, Automaton *a) {
    uint8_t *plain = keep(loader, a->state_count, 1);
    for (uint32_t state = 0; state < a->state_count; state++) {
        plain[state] = ALL_ASCII;
        for (uint32_t byte = 0; byte < 128; byte++) {
            if (a->following[(size_t)state * a->class_count + a->classes[byte]] == state + 1) continue;
            plain[state] = byte == '$' && plain[state] != BY_AUTOMATON ? ASCII_BUT_DOLLARS : BY_AUTOMATON;
        }
    }
    a->plain = plain;
}

static void put_slot(NameSlot *slots, uint32_t slot_count, uint32_t literal, uint32_t index) {
    if (find_literal(slots, slot_count, literal) != NULL) longjmp(*way_out, 2);
    uint32_t at = literal * 0x9E3779B1u;
    while (slots[at & (slot_count - 1)].literal_plus_1 != 0) at++;
    slots[at & (slot_count - 1)] = (NameSlot){literal + 1, index};
}

static NameSlot *keep_slots(Loader *loader, uint32_t count, uint32_t *slot_count) {
    *slot_count = 2;
    while (*slot_count < 2 * count) *slot_count *= 2;
    return keep(loader, *slot_count, sizeof(NameSlot));
}

static const Form *load_forms(Loader *loader, const Node *node, uint32_t *count) {
    *count = take_count(loader);
    Form *forms = keep(loader, *count, sizeof *forms);
    for (uint32_t i = 0; i < *count; i++) {
        forms[i].alternative = take_index(loader, node->alternative_count);
        forms[i].automaton = take_index(loader, loader->engine->automaton_count);
    }
    return forms;
}

static void load_key(Loader *loader, const Node *node, Key *key) {
    Mask *masks = keep(loader, node->shape_count, sizeof *masks);
    key->child = &loader->engine->nodes[take_index(loader, loader->engine->node_count)];
    for (uint32_t i = 0; i < node->shape_count; i++) masks[i] = take_mask(loader);
    key->masks = masks;
}

static void load_node(Loader *loader, Node *node) {
    Engine *engine = loader->engine;
    node->number = (uint32_t)(node - engine->nodes);
    node->opens = (int)take_number(loader, 1);
    node->alternative_count = (uint32_t)take_number(loader, MAX_ALTERNATIVES);
    Alternative *alternatives = keep(loader, node->alternative_count, sizeof *alternatives);
    node->alternatives = alternatives;
    node->costs = keep(loader, node->alternative_count, sizeof *node->costs);
    for (uint32_t i = 0; i < node->alternative_count; i++) {
        alternatives[i].kind = (uint32_t)take_number(loader, FIRST_LITERAL);
        alternatives[i].index = (uint32_t)take_number(loader, UINT32_MAX);
        node->costs[i] = INFINITE;
    }
    for (int i = 0; i < 3; i++) node->constants[i] = take_mask(loader);
    node->lenient = take_mask(loader);
    node->texts = load_forms(loader, node, &node->text_count);
    node->numbers = load_forms(loader, node, &node->number_count);
    uint32_t members = take_count(loader);
    Mask *member_masks = keep(loader, members, sizeof *member_masks);
    NameSlot *member_slots = keep_slots(loader, members, &node->member_slots);
    for (uint32_t i = 0; i < members; i++) {
        put_slot(member_slots, node->member_slots, take_index(loader, engine->literal_count), i);
        member_masks[i] = take_mask(loader);
    }
    node->members = member_slots;
    node->member_masks = member_masks;
    node->array_count = take_count(loader);
    ArrayShape *arrays = keep(loader, node->array_count, sizeof *arrays);
    for (uint32_t i = 0; i < node->array_count; i++) {
        arrays[i].alternative = take_index(loader, node->alternative_count);
        arrays[i].minimum = take_number(loader, 1 << 20);
        arrays[i].maximum = take_number(loader, UINT64_MAX);
        arrays[i].items = take_mask(loader);
    }
    node->arrays = arrays;
    if (node->array_count) node->item = &engine->nodes[take_index(loader, engine->node_count)];
    node->known_count = (uint32_t)take_number(loader, MAX_KNOWN);
    node->known_words = (node->known_count + 63) / 64;
    node->shape_count = take_count(loader);
    ObjectShape *shapes = keep(loader, node->shape_count, sizeof *shapes);
    for (uint32_t i = 0; i < node->shape_count; i++) {
        shapes[i].alternative = take_index(loader, node->alternative_count);
        shapes[i].minimum = take_number(loader, 1 << 20);
        shapes[i].maximum = take_number(loader, UINT64_MAX);
        shapes[i].required_count = take_count(loader);
        uint32_t *required = keep(loader, shapes[i].required_count, sizeof *required);
        uint64_t *bits = keep(loader, node->known_words, sizeof *bits);
        for (uint32_t j = 0; j < shapes[i].required_count; j++) {
            required[j] = take_index(loader, node->known_count);
            set_bit(bits, required[j]);
        }
        shapes[i].required = required;
        shapes[i].required_bits = bits;
    }
    node->shapes = shapes;
    node->required = keep(loader, node->known_words, sizeof *node->required);
    for (uint32_t i = 0; i < node->shape_count; i++) {
        for (uint32_t word = 0; word < node->known_words; word++) node->required[word] |= shapes[i].required_bits[word];
    }
    Key *keys = keep(loader, node->known_count, sizeof *keys);
    NameSlot *known = keep_slots(loader, node->known_count, &node->known_slots);
    for (uint32_t i = 0; i < node->known_count; i++) {
        keys[i].literal = take_index(loader, engine->literal_count);
        put_slot(known, node->known_slots, keys[i].literal, i);
        load_key(loader, node, &keys[i]);
    }
    node->keys = keys;
    node->known = known;
    node->additional_count = take_count(loader);
    AdditionalKey *additional = keep(loader, node->additional_count, sizeof *additional);
    for (uint32_t i = 0; i < node->additional_count; i++) {
        additional[i].automaton = take_index(loader, engine->automaton_count);
        load_key(loader, node, &additional[i].key);
    }
    node->additional = additional;
    node->has_cases = engine->ignores_key_case && node->additional_count;
    Map folded_keys = {0};
    for (uint32_t i = 0; i < node->known_count && engine->ignores_key_case; i++) {
        const Literal *literal = &engine->literals[keys[i].literal];
        engine->key.count = 0;
        for (size_t j = 0; j < literal->length; j++) *push(&engine->key) = folded(literal->bytes[j]);
        uint32_t *known_key = map_value(&folded_keys, engine->key.items, engine->key.count);
        node->has_cases |= *known_key != 0;
        *known_key = 1;
    }
    free_map(&folded_keys);
    Definition *definitions[] = {&node->defines_keys, &node->defines_text};
    for (int i = 0; i < 2; i++) {
        definitions[i]->kind = (uint32_t)take_number(loader, 63);
        definitions[i]->is_unique = (uint32_t)take_number(loader, 1);
        definitions[i]->strict_unique = (uint32_t)take_number(loader, 1);
        definitions[i]->is_late = (uint32_t)take_number(loader, 1);
        definitions[i]->opens = (uint32_t)take_number(loader, 1);
    }
    node->implies = (uint32_t)take_number(loader, 63);
    node->scope = take_number(loader, UINT64_MAX);
    node->closes = take_number(loader, UINT64_MAX);
    engine->forward |= node->closes;
    engine->has_names |= node->defines_keys.kind || node->defines_text.kind;
    for (uint32_t i = 0; i < node->alternative_count; i++) { /* what an alternative refers to must be there */
        uint32_t kind = alternatives[i].kind;
        uint64_t limit = kind == NUMBER || kind == END  ? engine->automaton_count
                         : kind == FIRST_LITERAL        ? engine->literal_count
                         : kind == ARRAY                ? node->array_count
                         : kind == OBJECT               ? node->shape_count
                         : kind >= NULL_VALUE           ? UINT64_MAX
                                                        : 0;
        if (alternatives[i].index >= limit) longjmp(*way_out, 2);
    }
}

static int by_size(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static uint64_t shape_cost(const Node *node, uint32_t index, const uint32_t *name_lengths, Words *optional) {
    const ObjectShape *shape = &node->shapes[index];
    uint64_t cost = 1, smallest = shape->minimum > shape->required_count ? shape->minimum : shape->required_count;
    if (shape->maximum < smallest) return INFINITE;
    for (uint32_t i = 0; i < shape->required_count; i++) {
        const Key *key = &node->keys[shape->required[i]];
        cost += 1 + cost_of(key->child, &key->masks[index]);
    }
    if (shape->minimum <= shape->required_count) return cost;
    uint64_t missing = shape->minimum - shape->required_count;
    optional->count = 0;
    for (uint32_t i = 0; i < node->known_count; i++) {
        const Key *key = &node->keys[i];
        if (bit_of(shape->required_bits, i) || !any(key->masks[index])) continue;
        *push(optional) = 1 + cost_of(key->child, &key->masks[index]);
    }
    for (uint32_t i = 0; i < node->additional_count; i++) {
        const Key *key = &node->additional[i].key;
        if (!any(key->masks[index]) || name_lengths[i] >= FAR) continue;
        uint64_t here = name_lengths[i] + 1 + cost_of(key->child, &key->masks[index]);
        for (uint64_t j = 0; j < missing; j++) *push(optional) = here;
    }
    if (optional->count < missing) return INFINITE;
    qsort(optional->items, optional->count, sizeof *optional->items, by_size);
    for (uint64_t i = 0; i < missing; i++) cost += optional->items[i];
    return cost;
}

static uint64_t alternative_cost(const Engine *engine, const Node *node, uint32_t index, const uint32_t *name_lengths, Words *optional) {
    const Alternative *alternative = &node->alternatives[index];
    uint64_t opening = node->opens != 0, cost = 1;
    if (alternative->kind == NUMBER || alternative->kind == END) {
        const Automaton *a = &engine->automata[alternative->index];
        uint32_t length = a->state_count ? distance(engine->machine, alternative->index, 0, a->depth) : FAR;
        return length >= FAR ? INFINITE : length + 1 + (alternative->kind == NUMBER ? opening : 0);
    }
    if (alternative->kind == ARRAY) {
        const ArrayShape *array = &node->arrays[alternative->index];
        cost += opening + (array->minimum ? array->minimum * cost_of(node->item, &array->items) : 0);
    } else if (alternative->kind == OBJECT) {
        cost = opening + shape_cost(node, alternative->index, name_lengths, optional);
    }
    return cost < INFINITE ? cost : INFINITE;
}

/* The costs of all alternatives, the least fixed point from below infinity; and what follows from them. */
static void study_nodes(Loader *loader) {
    Engine *engine = loader->engine;
    uint32_t **name_lengths = keep(loader, engine->node_count, sizeof *name_lengths);
    Machine *m = engine->machine;
    Bytes text = {0};
    Words optional = {0};
    for (uint32_t i = 0; i < engine->node_count; i++) {
        Node *node = &engine->nodes[i];
        name_lengths[i] = keep(loader, node->additional_count, sizeof **name_lengths);
        for (uint32_t j = 0; j < node->additional_count; j++) {
            m->frames[0].node = node;
            text.count = 0;
            name_lengths[i][j] = spell(m, 0, &(Config){.automaton = node->additional[j].automaton}, &text) ? (uint32_t)text.count : FAR;
        }
        for (uint32_t j = 0; j < node->array_count; j++) {
            const ArrayShape *array = &node->arrays[j];
            uint64_t bound = array->maximum == UNBOUNDED || array->maximum < array->minimum ? array->minimum : array->maximum + 1;
            if (bound > node->count_bound) node->count_bound = bound;
        }
        for (uint32_t j = 0; j < node->shape_count; j++) {
            const ObjectShape *shape = &node->shapes[j];
            uint64_t bound = shape->maximum == UNBOUNDED || shape->maximum < shape->minimum ? shape->minimum : shape->maximum + 1;
            if (bound > node->count_bound) node->count_bound = bound;
        }
    }
    for (int has_changed = 1; has_changed;) {
        has_changed = 0;
        for (uint32_t i = 0; i < engine->node_count; i++) {
            Node *node = &engine->nodes[i];
            for (uint32_t j = 0; j < node->alternative_count; j++) {
                uint64_t cost = alternative_cost(engine, node, j, name_lengths[i], &optional);
                if (cost >= node->costs[j]) continue;
                node->costs[j] = cost;
                has_changed = 1;
            }
        }
    }
    free(text.items);
    free(optional.items);
    for (uint32_t i = 0; i < engine->node_count; i++) {
        Node *node = &engine->nodes[i];
        for (uint32_t j = 0; j < node->alternative_count; j++) {
            if (node->costs[j] < INFINITE) add(&node->live, j);
        }
    }
    for (uint32_t i = 0; i < engine->node_count; i++) { /* only what is live may be entered */
        Node *node = &engine->nodes[i];
        for (uint32_t j = 0; j < node->array_count; j++) ((ArrayShape *)node->arrays)[j].items &= node->item->live;
        for (uint32_t j = 0; j < node->known_count + node->additional_count; j++) {
            Key *key = j < node->known_count ? (Key *)&node->keys[j] : (Key *)&node->additional[j - node->known_count].key;
            for (uint32_t k = 0; k < node->shape_count; k++) {
                Mask *mask = (Mask *)&key->masks[k];
                *mask &= key->child->live;
                key->narrows |= any(*mask) && memcmp(mask, &key->child->live, sizeof *mask) != 0;
            }
        }
    }
}

static struct Span load_span(Loader *loader) {
    uint32_t length = take_count(loader);
    uint8_t *bytes = keep(loader, length, 1);
    for (uint32_t i = 0; i < length; i++) bytes[i] = (uint8_t)take_number(loader, 255);
    return (struct Span){bytes, length};
}

static void load_implied(Loader *loader) {
    Engine *engine = loader->engine;
    uint32_t count = take_count(loader);
    Implied *implied = keep(loader, count, sizeof *implied);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t kind = (uint32_t)take_number(loader, 63);
        struct Span text = load_span(loader);
        implied[i].is_all = (int)take_number(loader, 1);
        implied[i].count = take_count(loader);
        struct Span *names = keep(loader, implied[i].count, sizeof *names);
        for (uint32_t j = 0; j < implied[i].count; j++) names[j] = load_span(loader);
        implied[i].names = names;
        engine->key.count = 0;
        append(&engine->key, (const uint8_t *)&kind, sizeof kind);
        append(&engine->key, text.bytes, text.length);
        *map_value(&engine->implied_numbers, engine->key.items, engine->key.count) = i + 1;
    }
    engine->implied = implied;
}

static void load_grammar(Loader *loader) {
    Engine *engine = loader->engine;
    loader->mask_words = (uint32_t)take_number(loader, MAX_ALTERNATIVES / 64);
    engine->literal_count = (uint32_t)take_number(loader, MAX_CODES - FIRST_LITERAL);
    engine->automaton_count = take_count(loader);
    engine->node_count = take_count(loader);
    engine->ignores_key_case = (int)take_number(loader, 1);
    engine->max_call_depth = (uint32_t)take_number(loader, 200);
    engine->max_call_units = (uint32_t)take_number(loader, 1 << 28);
    engine->graph_keys = (uint32_t)take_number(loader, 63);
    engine->graph_texts = (uint32_t)take_number(loader, 63);
    engine->owned_kind = (uint32_t)take_number(loader, 63);
    for (uint32_t left = take_count(loader); left > 0; left--) {
        uint32_t kind = (uint32_t)take_number(loader, 63);
        engine->while_open[kind] = (uint32_t)take_number(loader, 63);
    }
    load_implied(loader);
    engine->base_size = FIRST_LITERAL + engine->literal_count;
    if (engine->node_count == 0) longjmp(*way_out, 2);
    engine->literals = keep(loader, engine->literal_count, sizeof *engine->literals);
    engine->nodes = keep(loader, engine->node_count, sizeof *engine->nodes);
    engine->automata = keep(loader, engine->automaton_count, sizeof *engine->automata);
    for (uint32_t i = 0; i < engine->literal_count; i++) load_literal(loader, i);
    for (uint32_t i = 0; i < engine->automaton_count; i++) load_automaton(loader, &engine->automata[i]);
    for (uint32_t i = 0; i < engine->node_count; i++) load_node(loader, &engine->nodes[i]);
    if (loader->left != 0) longjmp(*way_out, 2);
    study_automata(loader);
    for (uint32_t i = 0; i < engine->automaton_count; i++) {
        find_plain(loader, &engine->automata[i]);
        find_entries(loader, &engine->automata[i]);
    }
    free_map(&loader->shapes);
    free_map(&loader->runs);
    study_nodes(loader);
}

/* Whether jobs need only jobs that are there, none itself by way of others, and one needs none. */
static int has_right_graph(Machine *m) {
    Map jobs = {0};
    Numbers counts = {0}, first = {0}, next = {0}, ready = {0}; /* per job: needs that are left, the needs that name it */
    Numbers owners = {0};
    int is_right = 1; /* where no jobs are among what was read, as in one job by itself */
    for (size_t i = 0; i < m->needs.count && is_right; i++) is_right = m->needs.items[i].kind != m->engine->graph_keys;
    for (size_t i = 0; i < m->needs.count && !is_right; i++) {
        const Name *job = &m->needs.items[i];
        if (job->kind != m->engine->graph_keys) continue;
        *push(&counts) = *push(&first) = 0;
        *map_value(&jobs, m->known_bytes.items + job->start, job->length) = (uint32_t)counts.count;
    }
    for (size_t i = 0; i < m->needs.count && !is_right; i++) {
        const Name *need = &m->needs.items[i];
        *push(&next) = *push(&owners) = 0;
        if (need->kind != m->engine->graph_texts) continue;
        uint32_t job = map_get(&jobs, m->known_bytes.items + need->start, need->length);
        uint32_t owner = map_get(&jobs, m->known_bytes.items + need->owner_start, need->owner_length);
        if (job == 0 || owner == 0) goto done;
        counts.items[owner - 1]++;
        owners.items[i] = owner;
        next.items[i] = first.items[job - 1];
        first.items[job - 1] = (uint32_t)i + 1;
    }
    for (uint32_t i = 0; i < counts.count; i++) {
        if (counts.items[i] == 0) *push(&ready) = i;
    }
    for (size_t at = 0; at < ready.count; at++) {
        for (uint32_t i = first.items[ready.items[at]]; i != 0; i = next.items[i - 1]) {
            if (--counts.items[owners.items[i - 1] - 1] == 0) *push(&ready) = owners.items[i - 1] - 1;
        }
    }
    is_right |= ready.count == counts.count;
done:
    free_map(&jobs);
    free(counts.items);
    free(first.items);
    free(next.items);
    free(ready.items);
    free(owners.items);
    return is_right;
}

/* ---- the interface ---- */

EXPORT const char *engine_version(void) { return ENGINE_VERSION; }

EXPORT void trie_free(Trie *trie) { free_trie(trie); }

/* Tokens given by their codes, one after the other; NULL where memory has run out. `codes` are below MAX_CODES. */
EXPORT Trie *trie_new(const uint16_t *codes, const uint32_t *lengths, uint32_t count, int has_rests) {
    GUARD(NULL);
    Trie *trie = allocate(1, sizeof *trie);
    load_tokens(trie, codes, lengths, count, has_rests);
    if (has_rests) load_json(trie);
    return trie;
}

/* The ids of codes, as many as there are codes at most. */
EXPORT size_t trie_cut(const Trie *trie, const uint16_t *codes, size_t count, uint32_t *ids) {
    return cut(trie, codes, count, ids);
}

EXPORT int trie_continues(const Trie *trie, const uint16_t *codes, size_t count) { /* some token begins so and is longer */
    uint32_t cell = 0;
    for (size_t i = 0; i < count; i++) {
        cell = cell_behind(trie, cell, codes[i]);
        if (cell == 0) return 0;
    }
    return (trie->cells.items[cell].next & GOES_ON) != 0;
}

EXPORT void engine_free(Engine *engine) {
    if (engine == NULL) return;
    jmp_buf here;
    way_out = &here;
    forget_masks(engine);
    free_map(&engine->literal_numbers);
    free_map(&engine->implied_numbers);
    free(engine->spans.items);
    for (size_t i = 0; i < MAX_LEVELS; i++) free_machine(engine->walkers[i]);
    free_machine(engine->machine);
    free_machine(engine->machine2);
    free_machine(engine->machine3);
    free(engine->facts.items);
    free(engine->texts.items);
    free(engine->marks.items);
    free(engine->masks.items);
    free(engine->packed.items);
    free(engine->codes.items);
    free(engine->json.items);
    free(engine->key.items);
    free(engine->noted.items);
    free(engine->numbers.items);
    while (engine->blocks != NULL) {
        Block *block = engine->blocks;
        engine->blocks = block->next;
        free(block);
    }
    free(engine);
}

/* An engine over tokens, which must live longer. NULL, and a problem: NO_MEMORY, 2 (the numbers are no grammar) or 3 (no
   finite document is valid). */
EXPORT Engine *engine_new(const uint64_t *numbers, size_t count, const Trie *trie, int *problem) {
    jmp_buf here;
    way_out = &here;
    *problem = NO_MEMORY;
    Engine *volatile engine = calloc(1, sizeof *engine);
    if (engine == NULL) return NULL;
    int reason = setjmp(here);
    if (reason == 0) {
        Loader loader = {.engine = engine, .at = numbers, .left = count};
        engine->trie = trie;
        for (int i = 0; i < 256 * 8; i++) engine->spread[i / 8][i % 8] = (uint8_t)(i / 8 >> i % 8 & 1);
        engine->machine = new_machine(engine);
        engine->machine2 = new_machine(engine);
        engine->machine3 = new_machine(engine);
        load_grammar(&loader);
        *problem = 3;
        if (start(engine->machine, 0, STRICT, NULL) && start(engine->machine, 0, LENIENT, NULL)) return engine;
    } else if (reason == 2) {
        *problem = 2;
    }
    engine_free(engine);
    return NULL;
}

/* Writes JSON text (UTF-8 with a NUL behind it) at a node, into engine_codes. Returns DONE, OPEN (the text is cut off
   between two of its parts), FAILED (engine_error_at says where), or NO_MEMORY. `accepted`: the alternatives of the node
   that accept a whole value, 8 numbers. The state stays in `m`, if it is given, whose mode counts. */
EXPORT int engine_write(Engine *engine, const uint8_t *text, size_t length, uint32_t node, uint32_t depth, Machine *m, uint64_t *accepted) {
    GUARD(NO_MEMORY);
    Writer writer = {.m = m ? m : engine->machine, .codes = &engine->codes, .text = text, .length = length};
    engine->codes.count = 0;
    reserve(&engine->codes, length + 64);
    int result = start(writer.m, node, m && is_strict(m) ? STRICT : LENIENT, NULL) ? FAILED : DONE;
    writer.m->depth += depth;
    if (result == FAILED && writer.m->depth <= MAX_DEPTH) result = write_document(&writer);
    else result = FAILED;
    engine->error_at = writer.at;
    if (result == DONE && !has_right_graph(writer.m)) result = FAILED;
    memcpy(accepted, &writer.m->accepted, sizeof writer.m->accepted);
    return result;
}

EXPORT uint64_t engine_error_at(const Engine *engine) { return engine->error_at; }
EXPORT const uint16_t *engine_codes(const Engine *engine, size_t *count) {
    *count = engine->codes.count;
    return engine->codes.items;
}

/* Token ids of JSON text: their number, or -1: it is not valid, -2: memory has run out. */
EXPORT int64_t engine_encode(Engine *engine, const uint8_t *text, size_t length, const uint32_t **ids) {
    uint64_t accepted[8];
    int result = engine_write(engine, text, length, 0, 0, NULL, accepted);
    if (result != DONE) return result == NO_MEMORY ? -2 : -1;
    GUARD(-2);
    engine->numbers.count = 0;
    reserve(&engine->numbers, engine->codes.count);
    *ids = engine->numbers.items;
    return (int64_t)cut(engine->trie, engine->codes.items, engine->codes.count, engine->numbers.items);
}

/* Reads codes into JSON. Returns DONE, OPEN (they are cut off), FAILED or NO_MEMORY; *consumed: codes that were read.
   `from`: stands behind what comes before them, and not in a number; NULL: nothing does. `checks_graph`: jobs must need
   jobs that are there. */
EXPORT int engine_read(Engine *engine, const Machine *from, const uint16_t *codes, size_t count, int checks_graph, const uint8_t **json,
                       size_t *length, size_t *consumed) {
    GUARD(NO_MEMORY);
    Machine *m = engine->machine;
    engine->json.count = 0;
    reserve(&engine->json, 3 * count + 64);
    *consumed = 0;
    if (from == NULL && !start(m, 0, LENIENT, &engine->json)) return FAILED;
    if (from != NULL) {
        engine->explored = NULL;
        copy_machine(m, from);
        m->json = &engine->json;
    }
    *consumed = walk(m, codes, count);
    *json = engine->json.items;
    *length = engine->json.count;
    if (m->is_closed) return !checks_graph || has_right_graph(m) ? DONE : FAILED;
    return *consumed == count ? OPEN : FAILED;
}

/* As which tokens the text on top takes in without changing its state. */
static uint32_t plainness_of(const Machine *m) {
    uint32_t kind = m->is_closed ? VALUE : m->frames[m->count - 1].kind;
    if (kind != SCALAR && kind != KEY_FRAME) return NOTHING;
    if (kind == KEY_FRAME || m->frames[m->count - 1].node->defines_text.kind) return BY_AUTOMATON;
    uint32_t plain = ALL_ASCII;
    for (size_t i = 0; i < m->configs.count; i++) {
        const Config *c = &m->configs.items[i];
        uint32_t here = c->stack ? BY_AUTOMATON : m->engine->automata[c->automaton].plain[c->state];
        if (here < plain) plain = here;
    }
    return plain;
}

/* As engine_read, for ids; 3: the last id reaches beyond the end of the document. *consumed: ids. */
EXPORT int engine_decode(Engine *engine, const uint32_t *ids, size_t count, const uint8_t **json, size_t *length, size_t *consumed) {
    GUARD(NO_MEMORY);
    Machine *m = engine->machine;
    Bytes *out = &engine->json;
    uint32_t plain = NOTHING;
    size_t i = 0, read = 0, token_length = 0;
    out->count = 0;
    *consumed = 0;
    for (size_t j = 0; j < count; j++) {
        if (ids[j] >= engine->trie->token_count) return FAILED;
    }
    if (!start(m, 0, LENIENT, out)) return FAILED;
    for (; i < count && !m->is_closed; i++) {
        const struct TokenJson *token = &engine->trie->token_json[ids[i]];
        int is_text = token->needs != STRUCTURE && plain != NOTHING;
        if (token->needs > plain) {
            const uint16_t *codes = codes_of(engine->trie, ids[i], &token_length);
            read = is_text ? token_length : walk(m, codes, token_length);
            if (is_text && !run(m, codes, token_length)) return FAILED;
            if (read != token_length && !m->is_closed) return FAILED;
            plain = plainness_of(m);
        }
        if (is_text) {
            const uint8_t *from = engine->trie->json.items + token->start;
            reserve(out, 6 * MAX_TOKEN + SPARE_JSON);
            memcpy(out->items + out->count, from, SPARE_JSON);
            if (token->length > SPARE_JSON) memcpy(out->items + out->count, from, token->length);
            out->count += token->length;
        }
    }
    *consumed = i;
    *json = out->items;
    *length = out->count;
    if (!m->is_closed) return OPEN;
    return !has_right_graph(m) ? FAILED : read == token_length ? DONE : 3;
}

EXPORT Machine *machine_new(Engine *engine, int mode) {
    GUARD(NULL);
    Machine *m = new_machine(engine);
    start(m, 0, mode, NULL);
    return m;
}

/* Reads the text, number or key on top again, from its beginning. */
static int read_again(Machine *m) {
    Frame *f = top_of(m);
    int is_key = f->kind == KEY_FRAME, is_read;
    Codes text = {0};
    for (size_t i = m->partial; i < m->names.count; i++) *push(&text) = m->names.items[i];
    m->names.count = m->partial;
    m->mask_plus_1 = 0;
    if (is_key) {
        m->count--;
        is_read = open_key(m);
    } else {
        const Node *node = f->node;
        is_read = open_scalar(m, f->length ? node->texts : node->numbers, f->length ? node->text_count : node->number_count, (int)f->length);
    }
    is_read = is_read && (text.count == 0 || run(m, text.items, text.count));
    free(text.items);
    return is_read;
}

/* From a prompt on in strict mode, for what is generated behind it. 0: the text, number or key on top has no such end, or
   the document has none: then nothing changes. */
EXPORT int machine_generate(Machine *m) {
    GUARD(NO_MEMORY);
    if (m->is_closed || is_strict(m)) return 1;
    Name job;
    Machine *changed = new_machine(m->engine);
    copy_machine(changed, m);
    uint32_t kind = top_of(changed)->kind;
    changed->mode = GENERATING;
    touch_names(changed);
    changed->mask_plus_1 = 0;
    changed->missing_jobs = count_missing_jobs(changed, &job);
    changed->is_owner_needed = is_needed(changed);
    int is_right = (kind != SCALAR && kind != KEY_FRAME) || read_again(changed);
    m->engine->codes.count = 0;
    is_right = is_right && complete(m->engine, changed, &m->engine->codes);
    if (is_right) copy_machine(m, changed);
    free_machine(changed);
    return is_right;
}

EXPORT Machine *machine_copy(const Machine *from) {
    GUARD(NULL);
    Machine *m = new_machine(from->engine);
    copy_machine(m, from);
    return m;
}

EXPORT void machine_free(Machine *m) { free_machine(m); }
EXPORT int machine_is_closed(const Machine *m) { return (int)m->is_closed; }
EXPORT uint64_t machine_fields(const Machine *m) { return m->fields; }

/* Reads codes, all or none: 1, 0 (no valid document has them here), or NO_MEMORY. `is_trial`: none in any case. */
EXPORT int machine_advance(Machine *m, const uint16_t *codes, size_t count, int is_trial) {
    GUARD(NO_MEMORY);
    Machine *moved = m->engine->machine2;
    m->engine->explored = NULL;
    copy_machine(moved, m);
    if (walk(moved, codes, count) != count) return 0;
    if (!is_trial) copy_machine(m, moved);
    return 1;
}

EXPORT int machine_advance_token(Machine *m, uint32_t token, int is_trial) {
    if (token >= m->engine->trie->token_count) return 0;
    size_t count;
    const uint16_t *codes = codes_of(m->engine->trie, token, &count);
    return machine_advance(m, codes, count, is_trial);
}

/* How many ids are legal, one after the other. Behind one that is not, the machine is of no more use. */
static size_t walk_tokens(Machine *m, const uint32_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t length;
        if (m->is_closed || ids[i] >= m->engine->trie->token_count) return i;
        const uint16_t *codes = codes_of(m->engine->trie, ids[i], &length);
        if (walk(m, codes, length) != length) return i;
    }
    return count;
}

/* Reads ids as far as they are legal, and returns how many; -1: memory has run out. */
EXPORT int64_t machine_advance_tokens(Machine *m, const uint32_t *ids, size_t count) {
    GUARD(-1);
    Machine *moved = m->engine->machine2;
    m->engine->explored = NULL;
    copy_machine(moved, m);
    size_t legal = walk_tokens(moved, ids, count);
    if (legal < count) { /* again, up to there */
        copy_machine(moved, m);
        walk_tokens(moved, ids, legal);
    }
    copy_machine(m, moved);
    return (int64_t)legal;
}

/* The fewest codes that make a whole document of what was read, in engine_codes. 0: there are none, which cannot be. */
EXPORT int machine_complete(Machine *m) {
    GUARD(NO_MEMORY);
    m->engine->codes.count = 0;
    return complete(m->engine, m, &m->engine->codes);
}

/* The same as token ids; their number, -1: there are none, -2: memory has run out. `first`: codes that come before. */
EXPORT int64_t machine_close(Machine *m, const uint32_t **ids) {
    GUARD(-2);
    Engine *engine = m->engine;
    engine->codes.count = 0;
    if (!complete(engine, m, &engine->codes)) return -1;
    engine->numbers.count = 0;
    reserve(&engine->numbers, engine->codes.count);
    *ids = engine->numbers.items;
    return (int64_t)cut(engine->trie, engine->codes.items, engine->codes.count, engine->numbers.items);
}

/* Which tokens may follow, a byte each. */
EXPORT int machine_legal(Machine *m, uint8_t *legal) {
    GUARD(NO_MEMORY);
    Engine *engine = m->engine;
    if (engine->remembered > MAX_MASK_BYTES) forget_masks(engine);
    uint32_t mask = mask_of(m);
    const uint64_t *bits = engine->masks.items[mask];
    uint32_t count = engine->trie->token_count, i = 0;
    for (; i + 64 <= count; i += 64) {
        uint64_t word = bits[i / 64];
        for (uint32_t j = 0; j < 64; j += 8) memcpy(legal + i + j, engine->spread[word >> j & 255], 8);
    }
    for (; i < count; i++) legal[i] = (uint8_t)bit_of(bits, i);
    return 1;
}

/* The numbers of the masks in the position of each token of a document. Returns how many tokens are legal, one after the
   other; -1: memory has run out. Numbers are valid up to the next call, see engine_mask. */
EXPORT int64_t engine_masks_of(Engine *engine, const uint32_t *ids, size_t count, uint32_t *numbers) {
    GUARD(-1);
    if (engine->remembered > MAX_MASK_BYTES) forget_masks(engine);
    Machine *m = engine->machine;
    if (!start(m, 0, LENIENT, NULL)) return 0;
    for (size_t i = 0; i < count; i++) {
        size_t length;
        if (ids[i] >= engine->trie->token_count || m->is_closed) return (int64_t)i;
        numbers[i] = engine->first_mask + mask_of(m);
        const uint16_t *codes = codes_of(engine->trie, ids[i], &length);
        if (walk(m, codes, length) != length) return (int64_t)i;
    }
    return (int64_t)count;
}

/* The bits of a mask, a bit a token, the first in the highest bit; NULL: it has been forgotten. */
EXPORT const uint8_t *engine_mask(Engine *engine, uint32_t number) {
    GUARD(NULL);
    if (number - engine->first_mask >= engine->masks.count) return NULL;
    return packed_mask(engine, number - engine->first_mask);
}

/* What a machine stands in, from the document inwards: for each frame its kind, its node, and the length of an array or
   the literal + 1 of the key whose value is being read (0: it is one of any name, the next of those in engine_codes, each
   with an END). Returns the number of frames. */
EXPORT int machine_frames(Machine *m, uint64_t *frames) {
    GUARD(NO_MEMORY);
    Engine *engine = m->engine;
    engine->codes.count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const Frame *f = &m->frames[i];
        uint64_t detail = f->length;
        if (f->kind == OBJECT_FRAME) {
            detail = f->key && i + 1 < m->count && m->frames[i + 1].kind != KEY_FRAME ? f->key->literal + 1 : 0;
            if (f->key != NULL && !(f->key >= f->node->keys && f->key < f->node->keys + f->node->known_count)) detail = 0;
            if (detail == 0 && i + 1 < m->count) {
                size_t at = f->first_entry, start_of = m->partial, end = m->names.count;
                if (m->frames[i + 1].kind != KEY_FRAME) {
                    for (const Entry *entry; (entry = next_entry(m, i, &at)) != NULL;) {
                        start_of = entry->start;
                        end = entry->start + entry->length;
                    }
                }
                for (; start_of < end; start_of++) *push(&engine->codes) = m->names.items[start_of];
                *push(&engine->codes) = END;
            }
        }
        frames[3 * i] = f->kind;
        frames[3 * i + 1] = f->node->number;
        frames[3 * i + 2] = detail;
    }
    return (int)m->count;
}
