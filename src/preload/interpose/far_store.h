// The memory of others, as the settings name it.
#pragma once

#include <memory>

#include "base/result.h"
#include "farmem/store.h"
#include "preload/far_settings.h"

namespace isthmus::preload {

// Room for the whole far region is reserved when it returns.
Result<std::unique_ptr<farmem::Store>> connect_far_store(const FarSettings& settings);

}  // namespace isthmus::preload
