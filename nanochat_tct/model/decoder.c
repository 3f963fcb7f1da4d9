/* The forward pass of a GPT on a CPU, one token after another or many at once, with the same bits.

   A library's matrix product sums in an order that depends on the number of rows, so a document would depend on the
   others in its batch. Here every result is computed by the same operations in the same order, whatever else is
   computed in the call: an inner product is eight sums (of the indices k mod 8), which are added at the end. Tiles,
   blocks and threads only share out results; none divides a sum. The compiler keeps that order (no -ffast-math), and
   multiplies and adds in one step only where FMA says so (-ffp-contract=off). */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#define FMA(a, b, c) ((Vector)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define KEEP(v) __asm__("" : "+x"(v)) /* in a register: compilers would read it from memory for each use */
#else
#define KEEP(v)
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define LANES 8
#define ROW_BLOCK 64           /* rows whose inputs stay in the second-level cache */
#define FEATURE_BLOCK 8        /* outputs that a thread takes at a time */
#define LEAST_FOR_THREADS 4e5  /* multiplications that are worth waking threads for */

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    const float *qkv, *attention_out, *up, *down; /* (3 C, C), (C, C), (4 C, C), (C, 4 C) */
} Layer;

typedef struct {
    int64_t n_layer, n_head, num_shifted, n_embd, vocab_size, capacity, num_rows, num_buckets, threads;
    const float *token_embedding, *position_embedding; /* (vocab_size, C), (num_buckets, C) */
    const int64_t *bucket_starts;                      /* (num_buckets,) */
    const float *cosines, *sines;                      /* (capacity - 1, head_dim / 2) */
    const float *head;                                 /* (vocab_size, C) */
    const Layer *layers;
    float *keys, *values; /* (n_layer, num_rows, n_head, capacity, head_dim) */
} Model;

INLINE Vector load(const float *x) { return *(const Unaligned *)x; }
INLINE void store(float *x, Vector value) { *(Unaligned *)x = value; }

INLINE Vector all(float value) { return (Vector){0} + value; }

INLINE Vector choose(Integers mask, Vector yes, Vector no) { /* of each lane */
    return (Vector)(((Integers)yes & mask) | ((Integers)no & ~mask));
}

INLINE float total(Vector v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* The totals of LANES vectors, each added in the same order. */
INLINE Vector totals(const Vector *v) {
#ifdef __AVX2__
#define PAIRS(a, b) (_mm256_shuffle_ps(a, b, 0x44) + _mm256_shuffle_ps(a, b, 0xee)) /* lanes 0 and 2, 1 and 3 */
    __m256 halves[4]; /* of v[i], then of v[i + 4]: lanes i and i + 4 together */
    for (int i = 0; i < 4; i++) {
        __m256 a = (__m256)v[i], b = (__m256)v[i + 4];
        halves[i] = _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
    }
    __m256 first = PAIRS(halves[0], halves[1]), second = PAIRS(halves[2], halves[3]);
    return (Vector)(_mm256_shuffle_ps(first, second, 0x88) + _mm256_shuffle_ps(first, second, 0xdd));
#else
    Vector found;
    for (int i = 0; i < LANES; i++) found[i] = total(v[i]);
    return found;
#endif
}

/* R rows times F features, with their R * F sums in registers. A row's results are in `out`, `stride` numbers after those
   of the row before. */
#define DEFINE_TILE(R, F)                                                                                              \
    INLINE void tile_##R##_##F(const float *x, const float *w, float *out, int64_t size, int64_t stride, int adds) { \
        Vector sums[R][F], inputs[R];                                                                                 \
        int64_t k = 0;                                                                                                \
        UNROLL for (int i = 0; i < R * F; i++) sums[i / F][i % F] = all(0);                                           \
        for (; k + LANES <= size; k += LANES) {                                                                       \
            UNROLL for (int r = 0; r < R; r++) {                                                                      \
                inputs[r] = load(x + r * size + k);                                                                   \
                KEEP(inputs[r]);                                                                                      \
            }                                                                                                         \
            UNROLL for (int f = 0; f < F; f++) {                                                                      \
                Vector weights = load(w + f * size + k);                                                              \
                KEEP(weights);                                                                                        \
                UNROLL for (int r = 0; r < R; r++) sums[r][f] = FMA(inputs[r], weights, sums[r][f]);                  \
            }                                                                                                         \
        }                                                                                                             \
        float found[R * F];                                                                                           \
        if (R * F == LANES) store(found, totals(&sums[0][0]));                                                        \
        else UNROLL for (int i = 0; i < R * F; i++) found[i] = total(sums[i / F][i % F]);                             \
        for (; k < size; k++) {                                                                                       \
            UNROLL for (int i = 0; i < R * F; i++) found[i] += x[i / F * size + k] * w[i % F * size + k];             \
        }                                                                                                             \
        UNROLL for (int r = 0; r < R; r++) {                                                                          \
            UNROLL for (int f = 0; f < F; f++) {                                                                      \
                float sum = found[r * F + f];                                                                         \
                out[r * stride + f] = adds ? out[r * stride + f] + sum : sum;                                         \
            }                                                                                                         \
        }                                                                                                             \
    }
#define UNROLL _Pragma("GCC unroll 8")
DEFINE_TILE(4, 2)
DEFINE_TILE(4, 1)
DEFINE_TILE(1, 8)
DEFINE_TILE(1, 1)

static void multiply_block(const float *x, const float *w, float *out, int64_t rows, int64_t features, int64_t size, int64_t stride, int adds) {
    int64_t r = 0, f;
    for (; r + 4 <= rows; r += 4) {
        for (f = 0; f + 2 <= features; f += 2) tile_4_2(x + r * size, w + f * size, out + r * stride + f, size, stride, adds);
        for (; f < features; f++) tile_4_1(x + r * size, w + f * size, out + r * stride + f, size, stride, adds);
    }
    for (; r < rows; r++) {
        for (f = 0; f + 8 <= features; f += 8) tile_1_8(x + r * size, w + f * size, out + r * stride + f, size, stride, adds);
        for (; f < features; f++) tile_1_1(x + r * size, w + f * size, out + r * stride + f, size, stride, adds);
    }
}

/* out (count, features) = x (count, size) times w (features, size) transposed; or added to what is there. */
static void multiply(const Model *m, const float *x, const float *w, float *out, int64_t count, int64_t features, int64_t size, int adds) {
    (void)m;
    int64_t blocks = (features + FEATURE_BLOCK - 1) / FEATURE_BLOCK;
#pragma omp parallel num_threads((int)m->threads) if ((double)count * features * size > LEAST_FOR_THREADS)
    for (int64_t row = 0; row < count; row += ROW_BLOCK) {
        int64_t rows = count - row < ROW_BLOCK ? count - row : ROW_BLOCK;
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block * FEATURE_BLOCK;
            int64_t width = features - first < FEATURE_BLOCK ? features - first : FEATURE_BLOCK;
            multiply_block(x + row * size, w + first * size, out + row * features + first, rows, width, size, features, adds);
        }
    }
}

INLINE float inner_product(const float *a, const float *b, int64_t size) {
    float result;
    tile_1_1(a, b, &result, size, 1, 0);
    return result;
}

/* RMSNorm without parameters. */
INLINE void normalize(const float *x, float *out, int64_t size) {
    float scale = 1 / sqrtf(inner_product(x, x, size) / (float)size + FLT_EPSILON);
    for (int64_t i = 0; i < size; i++) out[i] = x[i] * scale;
}

/* e^x, x in (-87, 88), to about two units in the last place: Cephes's polynomial. */
INLINE Vector exponential(Vector x) {
    Vector whole = x * 1.44269504f + 12582912.0f - 12582912.0f; /* rounded */
    Vector rest = FMA(whole, all(2.12194440e-4f), FMA(whole, all(-0.693359375f), x));
    Vector sum = all(1.9875691500e-4f);
    const float terms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f, 1.0f, 1.0f};
    for (int i = 0; i < 7; i++) sum = FMA(sum, rest, all(terms[i]));
    return sum * (Vector)((__builtin_convertvector(whole, Integers) + 127) << 23);
}

/* cap * tanh(x / cap) for some numbers, in place. */
INLINE void soft_cap(float *x, int64_t size, float cap) {
    for (int64_t i = 0; i < size; i += LANES) {
        float part[LANES] = {0};
        int64_t count = size - i < LANES ? size - i : LANES;
        memcpy(part, x + i, 4 * (size_t)count);
        Vector twice = load(part) / (cap / 2);
        twice = choose(twice > -40, twice, all(-40));
        twice = choose(twice < 40, twice, all(40));
        store(part, cap - 2 * cap / (exponential(twice) + 1));
        memcpy(x + i, part, 4 * (size_t)count);
    }
}

/* Rotate and normalise the queries and keys of a token, and keep its keys and values. In the last `num_shifted` heads its
   key is kept as the next token's. */
static void place_heads(const Model *m, int64_t layer, float *qkv, int64_t row, int64_t position) {
    int64_t C = m->n_embd, D = C / m->n_head, half = D / 2;
    const float *cosines = m->cosines + position * half, *sines = m->sines + position * half;
    for (int64_t head = 0; head < 2 * m->n_head; head++) { /* those of queries, then those of keys */
        float *x = qkv + head * D;
        for (int64_t i = 0; i < half; i++) {
            float first = x[i], second = x[half + i];
            x[i] = first * cosines[i] + second * sines[i];
            x[half + i] = second * cosines[i] - first * sines[i];
        }
        normalize(x, x, D);
    }
    for (int64_t head = 0; head < m->n_head; head++) {
        int64_t at = (((layer * m->num_rows + row) * m->n_head + head) * m->capacity + position) * D;
        int64_t shift = head < m->n_head - m->num_shifted ? 0 : D;
        memcpy(m->keys + at + shift, qkv + C + head * D, 4 * (size_t)D);
        memcpy(m->values + at, qkv + 2 * C + head * D, 4 * (size_t)D);
    }
}

/* Softmax attention of one query over the keys up to its position. */
static void attend(const Model *m, int64_t layer, int64_t head, const float *query, int64_t row, int64_t position, float *scores, float *out) {
    int64_t D = m->n_embd / m->n_head, count = position + 1;
    int64_t at = ((layer * m->num_rows + row) * m->n_head + head) * m->capacity * D;
    const float *keys = m->keys + at, *values = m->values + at;
    float scale = 1 / sqrtf((float)D), largest = -INFINITY;
    multiply_block(query, keys, scores, 1, count, D, count, 0);
    for (int64_t j = 0; j < count; j++) {
        scores[j] *= scale;
        largest = scores[j] > largest ? scores[j] : largest;
    }
    for (int64_t j = count; j < count + LANES; j++) scores[j] = -INFINITY;
    Vector sums = {0};
    const Integers lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int64_t j = 0; j < count; j += LANES) {
        Vector below = load(scores + j) - largest;
        Vector weights = exponential(choose(below > -87, below, all(-87)));
        if (j + LANES > count) weights = choose(lanes < (int32_t)(count - j), weights, all(0));
        store(scores + j, weights);
        sums += weights;
    }
    float inverse = 1 / total(sums);
    int64_t i = 0;
    for (; i + 4 * LANES <= D; i += 4 * LANES) {
        Vector mixed[4] = {{0}};
        for (int64_t j = 0; j < count; j++) {
            UNROLL for (int part = 0; part < 4; part++) mixed[part] += scores[j] * load(values + j * D + i + part * LANES);
        }
        UNROLL for (int part = 0; part < 4; part++) store(out + i + part * LANES, mixed[part] * inverse);
    }
    for (; i < D; i++) {
        float sum = 0;
        for (int64_t j = 0; j < count; j++) sum += scores[j] * values[j * D + i];
        out[i] = sum * inverse;
    }
}

static void embed(const Model *m, int64_t token, float *out) {
    const float *from = m->token_embedding + token * m->n_embd;
    if (token >= m->vocab_size) {
        int64_t bucket = 0;
        while (bucket + 1 < m->num_buckets && m->bucket_starts[bucket + 1] <= token - m->vocab_size) bucket++;
        from = m->position_embedding + bucket * m->n_embd;
    }
    normalize(from, out, m->n_embd);
}

/* Read tokens, each at a position of a row of the cache, where the earlier positions of that row are filled or in the
   same call. hidden: (count, n_embd), what the head reads. 0: there is no memory. */
EXPORT int decoder_read(const Model *m, const int64_t *tokens, const int64_t *rows, const int64_t *positions, int64_t count, float *hidden) {
    int64_t C = m->n_embd, D = C / m->n_head, scores_size = m->capacity + 2 * LANES;
    float *x = malloc(4 * (size_t)(count * 6 * C + m->threads * scores_size));
    if (!x) return 0;
    float *y = x + count * C, *wide = y + count * C, *scores = wide + count * 4 * C;
    for (int64_t n = 0; n < count; n++) embed(m, tokens[n], x + n * C);
    for (int64_t layer = 0; layer < m->n_layer; layer++) {
        const Layer *weights = &m->layers[layer];
        for (int64_t n = 0; n < count; n++) normalize(x + n * C, y + n * C, C);
        multiply(m, y, weights->qkv, wide, count, 3 * C, C, 0);
        double work = 0;
        for (int64_t n = 0; n < count; n++) {
            place_heads(m, layer, wide + n * 3 * C, rows[n], positions[n]);
            work += 2.0 * (double)(positions[n] + 1) * (double)C;
        }
        int64_t threads = work > LEAST_FOR_THREADS ? m->threads : 1;
#pragma omp parallel for num_threads((int)threads) schedule(static)
        for (int64_t thread = 0; thread < threads; thread++) {
            for (int64_t i = thread; i < count * m->n_head; i += threads) {
                int64_t n = i / m->n_head, head = i % m->n_head;
                attend(m, layer, head, wide + n * 3 * C + head * D, rows[n], positions[n], scores + thread * scores_size, y + n * C + head * D);
            }
        }
        multiply(m, y, weights->attention_out, x, count, C, C, 1);
        for (int64_t n = 0; n < count; n++) normalize(x + n * C, y + n * C, C);
        multiply(m, y, weights->up, wide, count, 4 * C, C, 0);
        for (int64_t i = 0; i < count * 4 * C; i++) wide[i] = wide[i] > 0 ? wide[i] * wide[i] : 0;
        multiply(m, wide, weights->down, x, count, C, 4 * C, 1);
    }
    for (int64_t n = 0; n < count; n++) normalize(x + n * C, hidden + n * C, C);
    free(x);
    return 1;
}

/* The soft-capped logits (count, vocab_size) of the tokens that follow. */
EXPORT void decoder_predict(const Model *m, const float *hidden, int64_t count, float cap, float *logits) {
    multiply(m, hidden, m->head, logits, count, m->vocab_size, m->n_embd, 0);
    for (int64_t n = 0; n < count; n++) soft_cap(logits + n * m->vocab_size, m->vocab_size, cap);
}

EXPORT const char *decoder_version(void) { return ENGINE_VERSION; }
