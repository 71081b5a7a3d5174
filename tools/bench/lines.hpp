#pragma once

#include "measure.hpp"

/// The lines, one source a family of workloads. Each prints one or more results.
namespace bench {

void yield(settings const&);
void yield_100000(settings const&);
void spawn_join_b1000(settings const&);
void spawn_join_all(settings const&);
void skynet(settings const&);
void pingpong(settings const&);
void chan_mpmc(settings const&);
void mutex_uncontended(settings const&);
void mutex_contended(settings const&);
void timers(settings const&);
void timeout_ready(settings const&);
void timeout_armed(settings const&);
void parked(settings const&);
void parked_never_started(settings const&);
void scope_enter_exit(settings const&);
void entry_check(settings const&);
void cancel_parked(settings const&);
void event_broadcast(settings const&);
void processes_2gib(settings const&);
void file_reads(settings const&);
void file_reads_random(settings const&);
void walk_tree(settings const&);
void xcall(settings const&);
void xpost(settings const&);
void offload(settings const&);
void receive_until(settings const&);
void event_broadcast_100000(settings const&);
void event_set_100000(settings const&);
void idle_connections(settings const&);
void idle_connections_4k(settings const&);
void send_file(settings const&);

} // namespace bench
