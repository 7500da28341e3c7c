// Preloaded into a process: the FAIL_AT-th call that writes below the folder FAIL_UNDER fails with
// the number FAIL_ERRNO, and so do all that follow if FAIL_ON is set; at number 0 the process is
// killed. Where FAIL_LOCKS is a number, every lock fails with it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long calls;

static int fails(const char *path) {
  const char *under = getenv("FAIL_UNDER");
  if (!under || !strstr(path, under)) return 0;
  long call = ++calls, at = atol(getenv("FAIL_AT"));
  if (call < at || (call > at && !getenv("FAIL_ON"))) return 0;
  errno = atoi(getenv("FAIL_ERRNO"));
  if (!errno) kill(getpid(), SIGKILL);
  return 1;
}

static int file_fails(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = file > 2 ? readlink(link, path, sizeof path - 1) : -1;
  if (size < 0) return 0;
  path[size] = 0;
  return fails(path);
}

static int lock_fails(void) {
  const char *number = getenv("FAIL_LOCKS");
  if (!number) return 0;
  errno = atoi(number);
  return 1;
}

#define MODE(flags) va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list)
#define WRITES(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR))
#define OPEN(name)                                    \
  int name(const char *path, int flags, ...) {        \
    MODE(flags);                                      \
    if (WRITES(flags) && fails(path)) return -1;      \
    return REAL(name)(path, flags, mode);             \
  }
#define OPENAT(name)                                  \
  int name(int at, const char *path, int flags, ...) { \
    MODE(flags);                                      \
    if (WRITES(flags) && fails(path)) return -1;      \
    return REAL(name)(at, path, flags, mode);         \
  }
#define FCNTL(name)                                                                             \
  int name(int file, int what, ...) {                                                           \
    va_list list; va_start(list, what); void *with = va_arg(list, void *); va_end(list);        \
    int locks = what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW; \
    if (locks && lock_fails()) return -1;                                                       \
    return REAL(name)(file, what, with);                                                        \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FCNTL(fcntl)
FCNTL(fcntl64)

int flock(int file, int what) { return lock_fails() ? -1 : REAL(flock)(file, what); }

ssize_t write(int file, const void *bytes, size_t size) {
  return file_fails(file) ? -1 : REAL(write)(file, bytes, size);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  return file_fails(file) ? -1 : REAL(writev)(file, parts, count);
}
int fsync(int file) { return file_fails(file) ? -1 : REAL(fsync)(file); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int unlink(const char *path) { return fails(path) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return fails(path) ? -1 : REAL(rmdir)(path); }
int unlinkat(int folder, const char *path, int flags) {
  return file_fails(folder) ? -1 : REAL(unlinkat)(folder, path, flags);
}
