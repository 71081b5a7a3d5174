#pragma once

namespace stress {

/// Goes on in a child of this process, which stays behind for those whom the child's processes leave
/// behind: it reaps them at once, where init might take its time, and ends as the child does, or with 1
/// if one of them is still alive long after the child. Before there are threads.
void live_below_a_reaper();

} // namespace stress
