// Operators of torch: batched products, Adam's update applied to such a product, and convolutions. matmul.py defines them.
//
// No header of torch: they take half a minute to compile. What is used of it is its stable C interface
// (https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html), whose addresses Python passes to harness_register. An
// operator gets its arguments as a stack of 64 bits each, of which it owns the tensors, and leaves its result there.

#include <stdexcept>

#include "convolutions.h"

typedef struct AtenTensorOpaque* Handle;

extern "C" {
typedef void (*Operator)(uint64_t* stack, uint64_t arguments, uint64_t results);

// Functions of torch, each returns 0 if all went well, and its numbers for a type and a device.
typedef struct {
    int32_t (*library_init_impl)(const char* ns, const char* key, const char* file, uint32_t line, void** library);
    int32_t (*library_impl)(void* library, const char* name, Operator, uint64_t version);
    int32_t (*get_data_ptr)(Handle, void**);
    int32_t (*get_sizes)(Handle, int64_t**);
    int32_t (*get_strides)(Handle, int64_t**);
    int32_t (*empty_strided)(
        int64_t dimensions, const int64_t* sizes, const int64_t* strides, int32_t type, int32_t device, int32_t index, Handle*);
    int32_t (*delete_tensor)(Handle);
    int64_t float32, cpu;
} Torch;
}

static Torch torch;

static void check(bool right, const char* otherwise) {
    if (!right) throw std::runtime_error(otherwise);
}

// A tensor that is owned: an argument from the stack, or a new one.
struct Tensor {
    Handle handle;
    float* data = nullptr;
    int64_t *sizes = nullptr, *strides = nullptr;

    explicit Tensor(Handle from) : handle(from) {
        void* at;
        bool right = !torch.get_data_ptr(handle, &at) && !torch.get_sizes(handle, &sizes) && !torch.get_strides(handle, &strides);
        check(right, "harness: torch does not tell where a tensor lies");
        data = (float*)at;
    }
    explicit Tensor(uint64_t from) : Tensor((Handle)from) {}
    Tensor(const Tensor&) = delete;
    ~Tensor() {
        if (handle) torch.delete_tensor(handle);
    }

    template <size_t N>
    static Handle made(const int64_t (&sizes)[N]) {
        int64_t strides[N], count = 1;
        for (int d = N; d-- > 0; count *= sizes[d]) strides[d] = count;
        Handle made;
        check(!torch.empty_strided(N, sizes, strides, torch.float32, torch.cpu, 0, &made), "harness: no memory for a new tensor");
        return made;
    }

    template <size_t N>
    explicit Tensor(const int64_t (&sizes)[N]) : Tensor(made(sizes)) {}

    // The data of one lane.
    float* lane(long s) const { return data + s * strides[0]; }

    // The data, for those who cannot read other orders of four dimensions.
    float* contiguous() const {
        int64_t count = 1;
        for (int d = 4; d-- > 0; count *= sizes[d])
            check(sizes[d] == 1 || strides[d] == count, "harness: a convolution's tensors must be contiguous");
        return data;
    }

    uint64_t release() {
        uint64_t left = (uint64_t)handle;
        handle = nullptr;
        return left;
    }
};

static double number(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// matmul(a (S, m, k), b (S, k, n), sparse): a b lane by lane, (S, m, n); both may have any strides.
static void matmul(uint64_t* stack, uint64_t, uint64_t) {
    Tensor a(stack[0]), b(stack[1]), c({a.sizes[0], a.sizes[1], b.sizes[2]});
    check(a.sizes[0] == b.sizes[0] && a.sizes[2] == b.sizes[1], "harness: sizes of a product do not fit");
    for (long s = 0; s < a.sizes[0]; s++) {
        product({a.sizes[1], b.sizes[2], a.sizes[2], a.lane(s), a.strides[1], a.strides[2], b.lane(s), b.strides[1],
                 b.strides[2], c.lane(s)}, stack[2]);
    }
    stack[0] = c.release();
}

// adam(x (S, k, m), g (S, k, n), p, mean, square (S, m, n, contiguous), rate, spread, learning_rate, weight_decay (S), sparse,
// decoupled, beta1, beta2, eps): one step of Adam in place, with the gradient x' g of each lane.
static void adam(uint64_t* stack, uint64_t, uint64_t) {
    Tensor x(stack[0]), g(stack[1]), p(stack[2]), mean(stack[3]), square(stack[4]);
    Tensor rate(stack[5]), spread(stack[6]), learning_rate(stack[7]), weight_decay(stack[8]);
    bool sparse = stack[9], decoupled = stack[10];
    double beta1 = number(stack[11]), beta2 = number(stack[12]), eps = number(stack[13]);
    for (long s = 0; s < x.sizes[0]; s++) {
        float decay = *weight_decay.lane(s);
        Adam update{p.lane(s), mean.lane(s),     square.lane(s), *rate.lane(s),    *spread.lane(s), 1,
                    decay,     float(1 - beta1), float(beta2),   float(1 - beta2), float(eps)};
        if (decoupled) update.keep = 1 - *learning_rate.lane(s) * decay, update.decay = 0;
        product({x.sizes[2], g.sizes[2], x.sizes[1], x.lane(s), x.strides[2], x.strides[1], g.lane(s), g.strides[1],
                 g.strides[2], nullptr, &update}, sparse);
    }
}

// A convolution's geometry from the kernel's, the strides and the zeros in front, two each, on the stack.
static Convolution convolution(const Tensor& images, const Tensor& outputs, const uint64_t* stack) {
    auto at = [=](int i) { return (long)stack[i]; };
    const int64_t *x = images.sizes, *y = outputs.sizes;
    return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], {at(0), at(1)}, {at(2), at(3)}, {at(4), at(5)}};
}

// convolve(x (B, H, W, C), w (O, C, kh, kw), down, across, geometry): (B, down, across, O).
static void convolve(uint64_t* stack, uint64_t, uint64_t) {
    Tensor x(stack[0]), w(stack[1]), out({x.sizes[0], (int64_t)stack[2], (int64_t)stack[3], w.sizes[0]});
    convolve(convolution(x, out, stack + 4), x.contiguous(), w.contiguous(), out.data);
    stack[0] = out.release();
}

// convolve_weight(x (B, H, W, C), g (B, down, across, O), geometry): the gradient of the weight, (O, C, kh, kw).
static void convolve_weight(uint64_t* stack, uint64_t, uint64_t) {
    Tensor x(stack[0]), g(stack[1]), out({g.sizes[3], x.sizes[3], (int64_t)stack[2], (int64_t)stack[3]});
    convolve_weight(convolution(x, g, stack + 2), x.contiguous(), g.contiguous(), out.data);
    stack[0] = out.release();
}

// convolve_image(g (B, down, across, O), w (O, C, kh, kw), H, W, geometry): the gradient of the images, (B, H, W, C).
static void convolve_image(uint64_t* stack, uint64_t, uint64_t) {
    Tensor g(stack[0]), w(stack[1]), out({g.sizes[0], (int64_t)stack[2], (int64_t)stack[3], w.sizes[1]});
    convolve_image(convolution(out, g, stack + 4), g.contiguous(), w.contiguous(), out.data);
    stack[0] = out.release();
}

// materialize(x): nothing; x then lies in memory.
static void materialize(uint64_t* stack, uint64_t, uint64_t) { Tensor x(stack[0]); }

// Give torch the operators that matmul.py has defined, once. Return 0 if it took them.
extern "C" int32_t harness_register(const Torch* functions) {
    constexpr uint64_t VERSION = 2ULL << 56 | 11ULL << 48;  // of the interface as written here: torch 2.11
    torch = *functions;
    void* library;
    if (torch.library_init_impl("harness", "CPU", __FILE__, __LINE__, &library)) return 1;
    struct { const char* name; Operator does; } all[] = {
        {"matmul", matmul}, {"adam", adam}, {"convolve", convolve}, {"convolve_weight", convolve_weight},
        {"convolve_image", convolve_image}, {"materialize", materialize},
    };
    for (auto& one : all)
        if (torch.library_impl(library, one.name, one.does, VERSION)) return 1;
    return 0;
}
