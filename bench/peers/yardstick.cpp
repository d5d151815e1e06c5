// The C++ yardstick: what a careful hand gets out of one core for one network and one batch size, both fixed when this is compiled:
//   g++ -O3 -march=native -ffast-math -shared -fPIC -DBATCH=256 '-DNET=Norm<16>,Linear<16,5,true,true>' yardstick.cpp
// float32 throughout; batch norm with batch statistics and running ones (momentum 0.1, unbiased), ReLU, linear, softmax cross-entropy,
// Adam as torch writes it, loss and hits counted. Activations are feature-major, so that every inner loop runs over the jets of a batch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

constexpr int L = 16, B = BATCH, BLOCKS = B / L, CLASSES = 5, INPUTS = 16;
static_assert(B % L == 0, "a batch must be a multiple of sixteen jets");
typedef vec Row[BLOCKS];  // one feature of every jet of the batch

INLINE vec splat(float x) { return x - vec{}; }
INLINE vec larger(vec a, vec b) { return a > b ? a : b; }

// Swap bit S of the row number with bit S of the lane number, for the rows r and r | S.
template <int S> INLINE void swap_bit(vec& a, vec& b) {
  ivec low, high;
  UNROLL for (int l = 0; l < L; l++) { low[l] = l & S ? (l ^ S) + L : l; high[l] = l & S ? l + L : l ^ S; }
  vec x = __builtin_shuffle(a, b, low), y = __builtin_shuffle(a, b, high);
  a = x; b = y;
}
template <int S> INLINE void transpose_stage(vec (&a)[L]) {
  UNROLL for (int r = 0; r < L; r++) if (!(r & S)) swap_bit<S>(a[r], a[r | S]);
}
INLINE void transpose(vec (&a)[L]) { transpose_stage<1>(a); transpose_stage<2>(a); transpose_stage<4>(a); transpose_stage<8>(a); }
template <int S> INLINE void sum_stage(vec (&a)[L]) {
  UNROLL for (int r = 0; r < S; r++) { swap_bit<S>(a[r], a[r | S]); a[r] += a[r | S]; }
}
// Lane r of the result is the sum of a[r]: sixteen sums for fifteen additions instead of sixty-four.
INLINE vec sums(vec (&a)[L]) { sum_stage<8>(a); sum_stage<4>(a); sum_stage<2>(a); sum_stage<1>(a); return a[0]; }

// For x <= 0; Cephes' polynomial, 2 ulp.
INLINE vec exp_of(vec x) {
  x = larger(x, splat(-87.0f));
  vec n = __builtin_convertvector(__builtin_convertvector(x * 1.44269504f - 0.5f, ivec), vec);
  vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 0.5f;
  return (p * r * r + r + 1.0f) * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

// out[r] = bias[r] + sum over k of w[r * RS + k * KS] * in[k], tiles of OT rows and IT blocks kept in registers.
template <int R, int K, int RS, int KS> INLINE void mix(const float* w, const float* bias, const Row* in, Row* out) {
  constexpr int IT = BLOCKS % 4 == 0 && R <= 6 ? 4 : BLOCKS % 2 == 0 ? 2 : 1;
  constexpr int OT = R <= 6 ? R : IT == 1 && R % 16 == 0 ? 16 : 8;
  static_assert(R % OT == 0, "rows must fill their tiles");
  for (int i = 0; i < BLOCKS; i += IT)
    for (int o = 0; o < R; o += OT) {
      vec acc[OT][IT];
      UNROLL for (int a = 0; a < OT; a++) UNROLL for (int b = 0; b < IT; b++) acc[a][b] = splat(bias ? bias[o + a] : 0.0f);
      for (int k = 0; k < K; k++)
        UNROLL for (int a = 0; a < OT; a++) UNROLL for (int b = 0; b < IT; b++) acc[a][b] += w[(o + a) * RS + k * KS] * in[k][i + b];
      UNROLL for (int a = 0; a < OT; a++) UNROLL for (int b = 0; b < IT; b++) out[o + a][i + b] = acc[a][b];
    }
}

template <int I, int O, bool BIAS, bool RELU> struct Linear {
  static constexpr int in = I, out = O, params = I * O + O, stats = 0;
  static void forward(const float* p, float*, const Row* x, Row* y, float*) {
    mix<O, I, I, 1>(p, p + I * O, x, y);
    if (RELU) for (int o = 0; o < O; o++) for (int i = 0; i < BLOCKS; i++) y[o][i] = larger(y[o][i], vec{});
  }
  static void backward(const float* p, float* g, const Row* x, const Row* y, Row* d, Row* dx, const float*) {
    if (RELU) for (int o = 0; o < O; o++) for (int i = 0; i < BLOCKS; i++) d[o][i] = y[o][i] > 0 ? d[o][i] : vec{};
    for (int o = 0; o < O; o += 2)
      for (int f = 0; f < I; f += 8) {
        vec acc[L] = {};
        for (int i = 0; i < BLOCKS; i++) {
          vec d0 = d[o][i], d1 = o + 1 < O ? d[o + 1][i] : vec{};
          UNROLL for (int k = 0; k < 8; k++) { acc[k] += d0 * x[f + k][i]; acc[8 + k] += d1 * x[f + k][i]; }
        }
        vec s = sums(acc);
        memcpy(g + o * I + f, &s, 32);
        if (o + 1 < O) memcpy(g + (o + 1) * I + f, (const float*)&s + 8, 32);
      }
    // A bias that feeds a batch norm has no gradient: see docs/decisions/training.md.
    if (BIAS) for (int o = 0; o < O; o += L) {
      vec acc[L] = {};
      for (int k = 0; k < std::min(L, O - o); k++) for (int i = 0; i < BLOCKS; i++) acc[k] += d[o + k][i];
      vec s = sums(acc);
      memcpy(g + I * O + o, &s, 4 * std::min(L, O - o));
    }
    if (dx) mix<I, O, 1, I>(p, nullptr, d, dx);
  }
};

// Batch norm and the ReLU that follows it everywhere in these networks. kept: mean and 1/deviation of this batch.
template <int N> struct Norm {
  static constexpr int in = N, out = N, params = 2 * N, stats = 2 * N;
  static void forward(const float* p, float* running, const Row* x, Row* y, float* kept) {
    for (int f = 0; f < N; f += L) {
      constexpr int W = N < L ? N : L;
      vec acc[L] = {};
      UNROLL for (int k = 0; k < W; k++) for (int i = 0; i < BLOCKS; i++) acc[k] += x[f + k][i];
      vec mean = sums(acc) / (float)B;
      vec dev[L] = {};
      UNROLL for (int k = 0; k < W; k++) for (int i = 0; i < BLOCKS; i++) { vec c = x[f + k][i] - mean[k]; dev[k] += c * c; }
      vec var = sums(dev) / (float)B, r, scale, gamma = {}, beta = {};
      for (int l = 0; l < L; l++) r[l] = 1 / std::sqrt(var[l] + 1e-5f);
      memcpy(&gamma, p + f, 4 * W); memcpy(&beta, p + N + f, 4 * W);
      scale = gamma * r;
      vec shift = beta - mean * scale, rm, rv;
      memcpy(&rm, running + f, 4 * W); memcpy(&rv, running + N + f, 4 * W);
      rm = 0.9f * rm + 0.1f * mean; rv = 0.9f * rv + 0.1f * (B / (B - 1.0f)) * var;
      memcpy(running + f, &rm, 4 * W); memcpy(running + N + f, &rv, 4 * W);
      memcpy(kept + f, &mean, 4 * W); memcpy(kept + N + f, &r, 4 * W);
      UNROLL for (int k = 0; k < W; k++) for (int i = 0; i < BLOCKS; i++) y[f + k][i] = larger(x[f + k][i] * scale[k] + shift[k], vec{});
    }
  }
  static void backward(const float* p, float* g, const Row* x, const Row* y, Row* d, Row* dx, const float* kept) {
    for (int f = 0; f < N; f += L) {
      constexpr int W = N < L ? N : L;
      vec sg[L] = {}, sb[L] = {};
      UNROLL for (int k = 0; k < W; k++) {
        vec mean = splat(kept[f + k]), a = {}, b = {};
        for (int i = 0; i < BLOCKS; i++) {
          vec v = y[f + k][i] > 0 ? d[f + k][i] : vec{};
          if (dx) d[f + k][i] = v;
          a += v * (x[f + k][i] - mean); b += v;
        }
        sg[k] = a; sb[k] = b;
      }
      vec r = {}, gg = sums(sg), gb = sums(sb);
      memcpy(&r, kept + N + f, 4 * W);
      gg *= r;
      memcpy(g + f, &gg, 4 * W); memcpy(g + N + f, &gb, 4 * W);
      if (dx) for (int k = 0; k < W; k++) {
        float c = p[f + k] * r[k], c1 = gg[k] * r[k] / B, c2 = gb[k] / B, m = kept[f + k];
        for (int i = 0; i < BLOCKS; i++) dx[f + k][i] = c * (d[f + k][i] - c2 - (x[f + k][i] - m) * c1);
      }
    }
  }
};

template <class... Ls> struct Chain;
template <> struct Chain<> { static constexpr int params = 0, stats = 0, rows = 0, last = 0; };
template <class H, class... T> struct Chain<H, T...> {
  using Rest = Chain<T...>;
  static constexpr int params = H::params + Rest::params, stats = H::stats + Rest::stats, rows = H::out + Rest::rows;
  static constexpr int last = sizeof...(T) ? H::in + Rest::last : H::in;  // where the logits lie
  static void forward(const float* p, float* st, Row* a, float* kept) {
    H::forward(p, st, a, a + H::in, kept);
    if constexpr (sizeof...(T)) Rest::forward(p + H::params, st + H::stats, a + H::in, kept + H::stats);
  }
  template <bool FIRST> static void backward(const float* p, float* g, Row* a, Row* d, const float* kept) {
    if constexpr (sizeof...(T)) Rest::template backward<false>(p + H::params, g + H::params, a + H::in, d + H::in, kept + H::stats);
    H::backward(p, g, a, a + H::in, d + H::in, FIRST ? nullptr : d, kept);
  }
};
using Net = Chain<NET>;

// Softmax cross-entropy: gradients of the mean into d, loss and hits summed.
INLINE void judge(const Row* a, Row* d, const int32_t* y, double* loss, double* hits) {
  alignas(64) float sum[B], own[B];
  ivec hit = {};
  for (int i = 0; i < BLOCKS; i++) {
    vec e[CLASSES], top = a[0][i], total = {}, mine = {};
    ivec label = *(const ivec*)(y + i * L), best = {};
    UNROLL for (int c = 1; c < CLASSES; c++) { best = a[c][i] > top ? ivec{} + c : best; top = larger(top, a[c][i]); }
    UNROLL for (int c = 0; c < CLASSES; c++) {
      e[c] = exp_of(a[c][i] - top); total += e[c];
      mine = label == c ? a[c][i] - top : mine;
    }
    vec inverse = (1.0f / B) / total;
    UNROLL for (int c = 0; c < CLASSES; c++) d[c][i] = e[c] * inverse - (label == c ? splat(1.0f / B) : vec{});
    *(vec*)(sum + i * L) = total; *(vec*)(own + i * L) = mine;
    hit -= best == label;
  }
  float s = 0; int h = 0;
  for (int i = 0; i < B; i++) s += std::log(sum[i]) - own[i];
  for (int l = 0; l < L; l++) h += hit[l];
  *loss += s / B; *hits += h;
}

INLINE void gather(const float* x, const uint8_t* labels, const int64_t* order, Row* a, int32_t* y) {
  for (int i = 0; i < BLOCKS; i++) {
    vec t[L];
    UNROLL for (int l = 0; l < L; l++) { memcpy(&t[l], x + order[i * L + l] * INPUTS, 64); y[i * L + l] = labels[order[i * L + l]]; }
    transpose(t);
    UNROLL for (int l = 0; l < L; l++) a[l][i] = t[l];
  }
}

// Jets of the next batch come from all over memory: ask for them while this one is computed.
INLINE void fetch(const float* x, const uint8_t* labels, const int64_t* order) {
  for (int i = 0; i < B; i++) { __builtin_prefetch(x + order[i] * INPUTS); __builtin_prefetch(labels + order[i]); }
}

extern "C" int parameters() { return Net::params; }
extern "C" int statistics() { return Net::stats; }

// Take `steps` steps on one replica; x (n, 16), order holds steps * BATCH row numbers, done: steps taken before. Sums of the steps' losses
// and hits go to figures[0] and [1].
extern "C" void train(const float* x, const uint8_t* labels, const int64_t* order, int64_t steps, int64_t done, float rate,
                      float* p, float* m, float* v, float* running, double* figures) {
  static thread_local struct alignas(64) { Row a[INPUTS + Net::rows], d[INPUTS + Net::rows]; float g[Net::params + L], kept[Net::stats + L]; int32_t y[B]; } s;
  memset(s.g, 0, sizeof s.g);
  for (int64_t step = 0; step < steps; step++, order += B) {
    gather(x, labels, order, s.a, s.y);
    if (step + 1 < steps) fetch(x, labels, order + B);
    Net::forward(p, running, s.a, s.kept);
    judge(s.a + Net::last, s.d + Net::last, s.y, figures, figures + 1);
    Net::template backward<true>(p, s.g, s.a, s.d, s.kept);
    double t = done + step + 1;
    float scale = rate / (1 - std::pow(0.9, t)), root = 1 / std::sqrt(1 - std::pow(0.999, t));
    for (int q = 0; q < Net::params; q++) {
      m[q] += 0.1f * (s.g[q] - m[q]);
      v[q] = 0.999f * v[q] + 0.001f * s.g[q] * s.g[q];
      p[q] -= scale * m[q] / (std::sqrt(v[q]) * root + 1e-8f);
    }
  }
}
