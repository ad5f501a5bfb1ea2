#include "ops/optim.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "ops/optim_checks.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

double step_bytes(int rule, DType dtype, const OptimTensor& tensor, bool zero_grad) {
  const int sources = tensor.source_count;
  if (sources == 0) return 0;
  const int states = cpu::rule_state_count(rule), updated = 1 + (tensor.average ? 1 : 0);
  const std::int64_t state_size = tensor.absmax[0] ? 1 : size_of(dtype);
  const std::int64_t source_size = tensor.source_format == Half::none ? size_of(dtype) : 2;
  const std::int64_t element = 2 * (updated * size_of(dtype) + states * state_size) +
                               sources * source_size * (zero_grad ? 2 : 1) +
                               (tensor.low ? (tensor.low_is_copy ? 2 : 4) : 0);
  return static_cast<double>(tensor.elements * element);
}

int find_rule(const std::string& name) {
  std::string known;
  for (int rule = 0; rule < kOptimRules; ++rule) {
    if (name == cpu::rule_name(rule)) return rule;
    known += std::string(rule ? ", " : "") + cpu::rule_name(rule);
  }
  fail<ValueError>(kOp, ": unknown rule '", name, "', expected one of ", known);
}

}  // namespace

std::vector<std::string> state_names(const std::string& rule_name) {
  const int rule = find_rule(rule_name);
  std::vector<std::string> names;
  for (int k = 0; k < cpu::rule_state_count(rule); ++k) names.emplace_back(cpu::rule_state_name(rule, k));
  return names;
}

int FusedOptimizer::add_group(const std::string& rule_name, std::vector<OptimTensorViews> tensors) {
  const int rule = find_rule(rule_name);
  auto owned = owned_;
  const auto own = [&](const std::string& name, const View& view) {
    if (view.elements() > 0)
      owned.push_back({extent(view), (groups_ ? "group " + std::to_string(groups_) + ": " : "") + name});
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const OptimTensorViews& tensor = tensors[i];
    check_master(tensor, i);
    if (tensor.copy) check_copy(tensor, i);
    if (!tensor.absmax.empty()) check_quantized(rule, tensor, i);
    const View& computed = tensor.master ? *tensor.master : tensor.param;
    check_same_device(kOp, indexed("params", i).c_str(), tensor.param, "the first parameter",
                      tensors_.empty() ? tensors[0].param : tensors_[0].views.param);
    check_written(indexed("params", i), tensor.param, tensor.param, i);
    own(indexed("params", i), tensor.param);
    if (tensor.master) own(indexed("masters", i), *tensor.master);
    if (tensor.copy) own(indexed("copies", i), *tensor.copy);
    for (std::size_t k = 0; k < tensor.states.size(); ++k) {
      const std::string name = indexed(cpu::rule_state_name(rule, static_cast<int>(k)), i);
      if (tensor.absmax.empty()) check_written(name, tensor.states[k], computed, i);
      own(name, tensor.states[k]);
      if (!tensor.absmax.empty()) own("absmax of " + name, tensor.absmax[k]);
    }
    if (tensor.average) {
      check_written(indexed("averages", i), *tensor.average, computed, i);
      own(indexed("averages", i), *tensor.average);
    }
  }
  std::sort(owned.begin(), owned.end(), by_address<Owned, Owned>);
  check_distinct(owned);

  if (!tensors.empty()) device_ = tensors[0].param.device;
  owned_ = std::move(owned);
  for (OptimTensorViews& views : tensors) add(rule, std::move(views));
  return static_cast<int>(groups_++);
}

void FusedOptimizer::add(int rule, OptimTensorViews views) {
  sources_.reset();
  const View& computed = views.master ? *views.master : views.param;
  cpu::OptimWork work;
  work.rule = rule;
  work.dtype = computed.dtype;
  work.tensor.elements = computed.elements();
  work.tensor.param = computed.data;
  if (views.master || views.copy) {
    const View& low = views.copy ? *views.copy : views.param;
    work.tensor.low = low.as<std::uint16_t>();
    work.tensor.low_format = format_of(low.dtype);
    work.tensor.low_is_copy = views.copy.has_value();
  }
  for (std::size_t k = 0; k < views.states.size(); ++k) work.tensor.states[k] = views.states[k].data;
  for (std::size_t k = 0; k < views.absmax.size(); ++k) work.tensor.absmax[k] = views.absmax[k].as<float>();
  work.tensor.average = views.average ? views.average->data : nullptr;
  slices_.add(static_cast<std::int64_t>(work_.size()), work.tensor.elements);
  work_.push_back(work);
  tensors_.push_back({static_cast<int>(groups_), std::move(views), {}});
}

std::shared_ptr<const Gradients> FusedOptimizer::checked(Gradients gradients, bool zero_grad) const {
  if (gradients.size() != tensors_.size())
    fail<ValueError>(kOp, ": got gradients for ", gradients.size(), " tensors, expected ", tensors_.size());
  std::vector<Owned> zeroed;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const View& param = tensors_[i].views.param;
    for (const View& gradient : gradients[i]) {
      const std::string name = indexed("grads", i), like = indexed("params", i);
      const bool widened = tensors_[i].views.master && gradient.dtype == DType::f32;
      if (!widened) check_same_dtype(kOp, name.c_str(), gradient, like.c_str(), param);
      check_same_dtype(kOp, name.c_str(), gradient, "the first of its sources", gradients[i][0]);
      check_same_shape(kOp, name.c_str(), gradient, like.c_str(), param);
      check_contiguous(kOp, name.c_str(), gradient);
      if (zero_grad) check_output(kOp, name.c_str(), gradient);
      const Extent range = extent(gradient);
      if (range.begin == range.end) continue;
      const Owned probe{range, name};
      auto next = std::upper_bound(owned_.begin(), owned_.end(), probe, by_address<Owned, Owned>);
      for (auto near : {next, next == owned_.begin() ? next : next - 1})
        if (near != owned_.end() && near->extent.begin < range.end && range.begin < near->extent.end)
          fail<ValueError>(kOp, ": ", name, " shares memory with ", near->name,
                           ", which the step overwrites; pass a copy");
      if (zero_grad) zeroed.push_back(probe);
    }
  }
  std::sort(zeroed.begin(), zeroed.end(), by_address<Owned, Owned>);
  check_distinct(zeroed);
  return std::make_shared<const Gradients>(std::move(gradients));
}

void FusedOptimizer::set_sources(const std::shared_ptr<const Gradients>& gradients) {
  if (sources_ == gradients) return;
  for (std::size_t i = 0; i < gradients->size(); ++i) {
    const std::vector<View>& views = (*gradients)[i];
    auto& sources = tensors_[i].sources;
    sources.clear();
    for (const View& gradient : views) sources.push_back(gradient.data);
    work_[i].tensor.sources = sources.data();
    work_[i].tensor.source_count = static_cast<int>(sources.size());
    work_[i].tensor.source_format = sources.empty() ? Half::none : format_of(views[0].dtype);
  }
  sources_ = gradients;
}

double FusedOptimizer::norm(double grad_scale) {
  cpu::optim_sum_squares(work_, slices_, squares_);
  return std::sqrt(std::accumulate(squares_.begin(), squares_.end(), 0.0)) * std::abs(grad_scale);
}

// A sum of squares that is finite has finite terms; one that is not may be an overflow in float64.
std::optional<std::size_t> FusedOptimizer::find_nonfinite() const {
  for (std::size_t i = 0; i < work_.size(); ++i)
    if (!std::isfinite(squares_[i]) && !cpu::optim_is_finite(work_[i])) return i;
  return std::nullopt;
}

double FusedOptimizer::grad_norm(const std::shared_ptr<const Gradients>& gradients, double grad_scale,
                                 double* norm) {
  set_sources(gradients);
  if (const cuda::Table* table = table_for(device_)) {
    double result = 0;
    table->optim_norm(device_items(), grad_scale, norm ? norm : &result, current_stream());
    return result;
  }
  return this->norm(grad_scale);
}

std::vector<cuda::OptimItem> FusedOptimizer::device_items() const {
  std::vector<cuda::OptimItem> items;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const OptimTensorViews& views = tensors_[i].views;
    if (work_[i].tensor.source_count == 0) continue;
    if (views.master || views.copy || !views.absmax.empty())
      fail<DeviceError>(
          kOp, ": has no CUDA kernel for parameters and copies of 16 bits and states of 8; use float32");
    items.push_back(
        {work_[i].rule, work_[i].dtype, tensors_[i].group, views.lr_scale, work_[i].tensor, views.step});
  }
  return items;
}

std::optional<double> FusedOptimizer::step_on(const cuda::Table& table, std::span<const Hyper> hyper,
                                              const OptimStageOptions& stages,
                                              const OptimStepOptions& options) {
  if (options.nonfinite != Nonfinite::propagate)
    fail<DeviceError>(kOp, ": looks for Inf and NaN on the CPU only; use nonfinite='propagate' on a GPU");
  const std::vector<cuda::OptimItem> items = device_items();
  double norm = 0;
  const cuda::OptimStep step{
      items, hyper, stages, options.max_norm, options.zero_grad, options.norm ? options.norm : &norm};
  table.optim_step(step, current_stream());
  return options.max_norm ? std::optional(norm) : std::nullopt;
}

// A whole step: norm, clipping, prepared scalars and the pass over memory, so that what memory holds
// (hyperparameters, step counts, gradients) is looked at when it runs.
struct StepLaunch {
  static constexpr const char* kName = "optimizer_step";
  FusedOptimizer& optimizer;
  std::span<const Hyper> hyper;
  std::shared_ptr<const Gradients> gradients;
  OptimStepOptions options;

  double flops() const { return 0; }  // bound by memory and by the divider
  double bytes() const {
    double total = 0;
    for (const auto& item : optimizer.work_)
      total += step_bytes(item.rule, item.dtype, item.tensor, options.zero_grad);
    return total;
  }
  void run() const {
    optimizer.set_sources(gradients);
    optimizer.run(hyper, options);
  }
  void visit(Fields& f) const {
    for (const auto& sources : *gradients) {
      f.number("gradient sources", static_cast<double>(sources.size()));
      for (const View& gradient : sources) {
        f.read(gradient);
        if (options.zero_grad) f.write(gradient);
      }
    }
    for (const auto& owned : optimizer.owned_) f.write_range(owned.extent);
    for (const auto& tensor : optimizer.tensors_) {
      const auto step = reinterpret_cast<std::intptr_t>(tensor.views.step);
      f.write_range({step, step + static_cast<std::intptr_t>(sizeof(StepState))});
    }
    f.number("grad_scale", options.grad_scale);
    f.number("max_norm", options.max_norm.value_or(-1));
    f.number("clip_value", options.clip_value.value_or(-1));
    f.number("ema_decay", options.ema_decay.value_or(-1));
    f.number("nonfinite", static_cast<double>(options.nonfinite));
  }
};

std::optional<double> FusedOptimizer::step(std::span<const Hyper> hyper,
                                           std::shared_ptr<const Gradients> gradients,
                                           const OptimStepOptions& options) {
  if (hyper.size() != groups_)
    fail<ValueError>(kOp, ": hyper has ", hyper.size(), " rows, expected one per group, ", groups_);
  set_sources(gradients);
  launch(StepLaunch{*this, hyper, std::move(gradients), options});
  return last_norm_;
}

// Tensors of a group usually have taken the same steps, and then the scalars of one are those of the
// next: their powers, roots and quotients in double would take longer than the update of a small tensor.
void FusedOptimizer::prepare(std::span<const Hyper> hyper, const OptimStageOptions& stages) {
  std::size_t last = tensors_.size();  // the tensor prepared last, and its count before and after
  StepState before{}, after{};
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (work_[i].tensor.source_count == 0) continue;
    const OptimTensorViews& views = tensors_[i].views;
    if (last < i && tensors_[last].group == tensors_[i].group && work_[last].dtype == work_[i].dtype &&
        tensors_[last].views.lr_scale == views.lr_scale && before == *views.step) {
      work_[i].rule_scalars = work_[last].rule_scalars;
      work_[i].stages = work_[last].stages;
      *views.step = after;
      continue;
    }
    Hyper h = hyper[static_cast<std::size_t>(tensors_[i].group)];
    h.lr *= views.lr_scale;
    before = *views.step;
    cpu::prepare(work_[i], h, *views.step, stages);
    after = *views.step;
    last = i;
  }
}

void FusedOptimizer::run(std::span<const Hyper> hyper, const OptimStepOptions& options) {
  nonfinite_tensor_.reset();
  last_norm_.reset();
  OptimStageOptions stages;
  stages.grad_scale = options.grad_scale;
  stages.clip_value = options.clip_value.value_or(std::numeric_limits<double>::infinity());
  stages.ema_decay = options.ema_decay.value_or(1.0);
  if (const cuda::Table* table = table_for(device_)) {
    last_norm_ = step_on(*table, hyper, stages, options);
    return;
  }
  if (options.max_norm || options.nonfinite != Nonfinite::propagate) last_norm_ = norm(options.grad_scale);
  if (options.nonfinite != Nonfinite::propagate && (nonfinite_tensor_ = find_nonfinite())) {
    if (options.zero_grad && options.nonfinite == Nonfinite::skip) cpu::optim_zero_gradients(work_, slices_);
    return;
  }
  if (options.max_norm) stages.grad_scale *= clip_factor(*last_norm_, *options.max_norm);
  prepare(hyper, stages);
  cpu::optim_adapt(work_, slices_);
  cpu::optim_step(work_, slices_, options.zero_grad);
}

}  // namespace thalweg::ops
