#include "plan/launch.h"

namespace thalweg {

thread_local LaunchObserver* launch_observer = nullptr;

}  // namespace thalweg
