"""Where OpenMP's threads run: never on the processor of the thread that they work for.

Threads sleep when nothing has come for them for a while, and Linux may wake one up on the very
processor whose thread wakes it, though another is idle. The two then take turns: on two processors,
loops of half a millisecond with gaps of 10 ms between them took twice as long nine times out of
ten. So a thread that starts a loop first looks where it runs, and if it has moved since, lets the
others run anywhere but there. Its own affinity stays as it is, and so does everybody's where a
user has bound the threads, and where there are fewer processors than threads.
"""

import os

from cython.parallel cimport prange

cdef extern from *:
    """
    #ifdef __linux__
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Of a thread that starts loops: how many threads work on them, which they are, itself among
     * them, and the processor that the others keep away from. */
    typedef struct {
        int count, avoided;
        pid_t ids[1024];
    } Team;
    static _Thread_local Team team_of_thread;

    static Team *minidl_team(void) { return &team_of_thread; }
    static int minidl_has_moved(const Team *team, int count) {
        return team->count != count || team->avoided != sched_getcpu();
    }
    static void minidl_join(Team *team, int index) { team->ids[index] = syscall(SYS_gettid); }

    static void minidl_keep_away(Team *team, int count) {
        cpu_set_t allowed;
        const pid_t me = syscall(SYS_gettid), process = getpid();
        team->count = count;
        team->avoided = sched_getcpu();
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < count)
            return;
        CPU_CLR(team->avoided, &allowed);
        for (int i = 0; i < count; ++i) /* some may have ended, and their numbers be others' now */
            if (team->ids[i] != me && syscall(SYS_tgkill, process, team->ids[i], 0) == 0)
                sched_setaffinity(team->ids[i], sizeof allowed, &allowed);
    }
    #else
    typedef struct { int count; } Team;
    static Team *minidl_team(void) { return NULL; }
    static int minidl_has_moved(const Team *team, int count) { return 0; }
    static void minidl_join(Team *team, int index) {}
    static void minidl_keep_away(Team *team, int count) {}
    #endif
    """
    ctypedef struct Team:
        int count
    Team *minidl_team() nogil
    bint minidl_has_moved(const Team *team, int count) nogil
    void minidl_join(Team *team, int index) nogil
    void minidl_keep_away(Team *team, int count) nogil

cdef bint BOUND_BY_USER = any(
    name in os.environ
    for name in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
)


def keep_apart(int num_threads):
    """Called before a loop by as many threads, or before several."""
    cdef Team *team = minidl_team()
    cdef int i
    if num_threads < 2 or BOUND_BY_USER or not minidl_has_moved(team, num_threads):
        return
    if team.count != num_threads:
        for i in prange(
            num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1
        ):
            minidl_join(team, i)
    minidl_keep_away(team, num_threads)
