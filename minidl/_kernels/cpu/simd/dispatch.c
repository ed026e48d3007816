/* The choice of an instruction set, once for each process: the best that processor and operating
 * system support, or the one named in the environment variable MINIDL_ISA. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    int (*supported)(void);
    const Kernels_F32 *(*f32)(void);
    const Kernels_F64 *(*f64)(void);
} InstructionSet;

const Kernels_F32 *minidl_portable_f32(void);
const Kernels_F64 *minidl_portable_f64(void);
static int always(void) { return 1; }

#if defined(__x86_64__)
const Kernels_F32 *minidl_avx512_f32(void);
const Kernels_F64 *minidl_avx512_f64(void);
const Kernels_F32 *minidl_avx2_f32(void);
const Kernels_F64 *minidl_avx2_f64(void);
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

/* Best first. */
static const InstructionSet SETS[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, minidl_avx512_f32, minidl_avx512_f64},
    {"avx2", has_avx2, minidl_avx2_f32, minidl_avx2_f64},
#endif
    {"portable", always, minidl_portable_f32, minidl_portable_f64},
};

static const InstructionSet *chosen(void) {
    static const InstructionSet *set = NULL;
    if (set == NULL) {
        const char *wanted = getenv("MINIDL_ISA");
        const InstructionSet *candidate = SETS;
        while (!candidate->supported()) ++candidate;
        for (const InstructionSet *s = SETS; s < SETS + sizeof SETS / sizeof *SETS; ++s)
            if (wanted != NULL && strcmp(wanted, s->name) == 0 && s->supported()) candidate = s;
        set = candidate;
    }
    return set;
}

const char *minidl_instruction_set(void) { return chosen()->name; }
const Kernels_F32 *minidl_kernels_f32(void) { return chosen()->f32(); }
const Kernels_F64 *minidl_kernels_f64(void) { return chosen()->f64(); }
