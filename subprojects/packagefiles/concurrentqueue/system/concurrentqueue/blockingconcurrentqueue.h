// Where distributions install it: one spelling of the include serves both.
#include "../../blockingconcurrentqueue.h"
