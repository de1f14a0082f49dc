/* Makes one system call of a process fail, or the process die at it. Preloaded.
 *
 * Counted are the calls that change files below one directory, so that a command has the same
 * numbers every time, whatever the interpreter does beside. `faults_begin` starts the count; the
 * call of that number is the one that fails. `flock` is counted too: it writes nothing, but a
 * command waits for it. Calls are made by `syscall`, since this library stands before libc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { COUNT, FAIL, FAIL_FROM_THERE_ON, SHORT, FAIL_AFTERWARDS, KILL_BEFORE, KILL_AMIDST,
              KILL_AFTER };

static char below[4096];
static size_t below_length;
static long wanted, seen;
static enum action action;
static int number_of_error, told = -1;

/* Counts from here on, tells the descriptor `to` the name of each call counted. */
void faults_begin(const char *directory, long at, int what, int error, int to)
{
    strncpy(below, directory, sizeof below - 1);
    below_length = strlen(below);
    wanted = at;
    seen = 0;
    action = what;
    number_of_error = error;
    told = to;
}

/* A child of the command has calls of its own, in no order that anybody could rely on. */
static void count_no_more(void)
{
    below_length = 0;
}

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(0, 0, count_no_more);
}

static int is_below(const char *path)
{
    return strncmp(path, below, below_length) == 0
        && (path[below_length] == '/' || path[below_length] == 0);
}

static int of_path(int directory, const char *path)
{
    char whole[8192], place[64];
    ssize_t length;
    if (!below_length)
        return 0;
    if (path[0] == '/')
        return is_below(path);
    if (directory == AT_FDCWD)
        strcpy(place, "/proc/self/cwd");
    else
        snprintf(place, sizeof place, "/proc/self/fd/%d", directory);
    length = syscall(SYS_readlinkat, AT_FDCWD, place, whole, 4000);
    if (length < 0 || strlen(path) > 4000)
        return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return is_below(whole);
}

static int of_descriptor(int descriptor)
{
    char path[4096], place[64];
    ssize_t length;
    if (!below_length)
        return 0;
    snprintf(place, sizeof place, "/proc/self/fd/%d", descriptor);
    length = syscall(SYS_readlinkat, AT_FDCWD, place, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static void die(void)
{
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;)
        pause();
}

/* What to do at this call: COUNT is to let it pass. `size` is what it writes, 0 if no bytes. */
static enum action met(const char *name, size_t size)
{
    char line[80];
    long mine = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    int length = snprintf(line, sizeof line, "%s %zu\n", name, size);
    if (told >= 0)
        syscall(SYS_write, told, line, length);
    if (mine != wanted && !(action == FAIL_FROM_THERE_ON && mine > wanted))
        return COUNT;
    if (action == KILL_BEFORE)
        die();
    return action;
}

/* The call `real` under the fault that was asked for; of it `part` writes but half. */
#define UNDER_FAULT(name, concerned, size, real, part)                                            \
    do {                                                                                          \
        enum action found = (concerned) ? met(name, size) : COUNT;                                \
        long result;                                                                              \
        if (found == FAIL || found == FAIL_FROM_THERE_ON) {                                       \
            errno = number_of_error;                                                              \
            return -1;                                                                            \
        }                                                                                         \
        result = found == SHORT || found == KILL_AMIDST ? (part) : (real);                        \
        if (found == KILL_AMIDST || found == KILL_AFTER)                                          \
            die();                                                                                \
        if (found == FAIL_AFTERWARDS) {                                                           \
            errno = number_of_error;                                                              \
            return -1;                                                                            \
        }                                                                                         \
        return result;                                                                            \
    } while (0)
#define WHOLE(name, concerned, real) UNDER_FAULT(name, concerned, 0, real, real)

static int opened(int directory, const char *path, int flags, mode_t mode)
{
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    WHOLE("open", writes && of_path(directory, path),
          syscall(SYS_openat, directory, path, flags, mode));
}

#define MODE(flags)                                                                               \
    mode_t mode = 0;                                                                              \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) {                                \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode = va_arg(rest, mode_t);                                                              \
        va_end(rest);                                                                             \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    MODE(flags)
    return opened(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    MODE(flags)
    return opened(directory, path, flags, mode);
}

int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int d, const char *path, int flags) { return opened(d, path, flags, 0); }
int __openat64_2(int d, const char *path, int flags) { return opened(d, path, flags, 0); }

ssize_t write(int to, const void *bytes, size_t size)
{
    UNDER_FAULT("write", of_descriptor(to), size, syscall(SYS_write, to, bytes, size),
                syscall(SYS_write, to, bytes, size / 2));
}

ssize_t pwrite(int to, const void *bytes, size_t size, off_t at)
{
    UNDER_FAULT("pwrite", of_descriptor(to), size, syscall(SYS_pwrite64, to, bytes, size, at),
                syscall(SYS_pwrite64, to, bytes, size / 2, at));
}

ssize_t pwrite64(int to, const void *bytes, size_t size, off64_t at)
{
    return pwrite(to, bytes, size, at);
}

static size_t size_of(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    return size;
}

static long half_of(int to, const struct iovec *parts, int count, off_t at)
{
    size_t half = size_of(parts, count) / 2;
    long done = 0;
    for (int i = 0; i < count && half; i++) {
        size_t some = parts[i].iov_len < half ? parts[i].iov_len : half;
        long result = at < 0 ? syscall(SYS_write, to, parts[i].iov_base, some)
                             : syscall(SYS_pwrite64, to, parts[i].iov_base, some, at + done);
        if (result < 0)
            return done ? done : result;
        done += result;
        half -= some;
    }
    return done;
}

ssize_t writev(int to, const struct iovec *parts, int count)
{
    UNDER_FAULT("writev", of_descriptor(to), size_of(parts, count),
                syscall(SYS_writev, to, parts, count), half_of(to, parts, count, -1));
}

ssize_t pwritev(int to, const struct iovec *parts, int count, off_t at)
{
    UNDER_FAULT("pwritev", of_descriptor(to), size_of(parts, count),
                syscall(SYS_pwritev, to, parts, count, at, 0), half_of(to, parts, count, at));
}

ssize_t pwritev64(int to, const struct iovec *parts, int count, off64_t at)
{
    return pwritev(to, parts, count, at);
}

ssize_t sendfile(int to, int from, off_t *at, size_t size)
{
    UNDER_FAULT("sendfile", of_descriptor(to), size, syscall(SYS_sendfile, to, from, at, size),
                syscall(SYS_sendfile, to, from, at, size / 2));
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size)
{
    return sendfile(to, from, at, size);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags)
{
    UNDER_FAULT("copy_file_range", of_descriptor(to), size,
                syscall(SYS_copy_file_range, from, a, to, b, size, flags),
                syscall(SYS_copy_file_range, from, a, to, b, size / 2, flags));
}

int fsync(int of) { WHOLE("fsync", of_descriptor(of), syscall(SYS_fsync, of)); }
int fdatasync(int of) { WHOLE("fdatasync", of_descriptor(of), syscall(SYS_fdatasync, of)); }

int msync(void *at, size_t size, int flags)
{
    WHOLE("msync", below_length, syscall(SYS_msync, at, size, flags));
}

int ftruncate(int of, off_t size)
{
    WHOLE("ftruncate", of_descriptor(of), syscall(SYS_ftruncate, of, size));
}

int ftruncate64(int of, off64_t size) { return ftruncate(of, size); }

int truncate(const char *path, off_t size)
{
    WHOLE("truncate", of_path(AT_FDCWD, path), syscall(SYS_truncate, path, size));
}

int truncate64(const char *path, off64_t size) { return truncate(path, size); }

static int allocated(int of, off_t at, off_t size)
{
    WHOLE("fallocate", of_descriptor(of), syscall(SYS_fallocate, of, 0, at, size));
}

/* It returns its error. */
int posix_fallocate(int of, off_t at, off_t size) { return allocated(of, at, size) ? errno : 0; }
int posix_fallocate64(int of, off64_t at, off64_t size) { return posix_fallocate(of, at, size); }

int renameat2(int d, const char *from, int e, const char *to, unsigned flags)
{
    WHOLE("rename", of_path(e, to), syscall(SYS_renameat2, d, from, e, to, flags));
}

int renameat(int d, const char *from, int e, const char *to)
{
    return renameat2(d, from, e, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int directory, const char *path, int flags)
{
    WHOLE("unlink", of_path(directory, path), syscall(SYS_unlinkat, directory, path, flags));
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *path, mode_t mode)
{
    WHOLE("mkdir", of_path(directory, path), syscall(SYS_mkdirat, directory, path, mode));
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int d, const char *from, int e, const char *to, int flags)
{
    WHOLE("link", of_path(e, to), syscall(SYS_linkat, d, from, e, to, flags));
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *what, int directory, const char *path)
{
    WHOLE("symlink", of_path(directory, path), syscall(SYS_symlinkat, what, directory, path));
}

int symlink(const char *what, const char *path) { return symlinkat(what, AT_FDCWD, path); }

int fchmod(int of, mode_t mode)
{
    WHOLE("chmod", of_descriptor(of), syscall(SYS_fchmod, of, mode));
}

int fchmodat(int directory, const char *path, mode_t mode, int flags)
{
    (void)flags;
    WHOLE("chmod", of_path(directory, path), syscall(SYS_fchmodat, directory, path, mode));
}

int chmod(const char *path, mode_t mode) { return fchmodat(AT_FDCWD, path, mode, 0); }

int fchown(int of, uid_t user, gid_t group)
{
    WHOLE("chown", of_descriptor(of), syscall(SYS_fchown, of, user, group));
}

int flock(int of, int operation)
{
    WHOLE("flock", of_descriptor(of), syscall(SYS_flock, of, operation));
}
