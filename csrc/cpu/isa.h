// Choice of the kernel table, once, outside all loops.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/table.h"

namespace thalweg {

const Kernels& kernels();  // the table in use
void use_isa(const std::string& name);
std::vector<std::string> available_isas();  // what this CPU can run, slowest first

}  // namespace thalweg
