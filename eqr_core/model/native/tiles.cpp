// Whether products may use tiles.
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern "C" {

// Whether the processor has tiles and this process may use them.
int eqr_tiles() {
#if defined(__AMX_BF16__) && defined(__linux__)
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}
}
