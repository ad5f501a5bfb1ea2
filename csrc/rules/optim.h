// Update rules: the mathematics of every optimizer, once, for every ISA and device.
//
// A rule is a struct of scalars. `prepare` computes them once per tensor and step, in double, from
// the hyperparameters and the tensor's step state (running products instead of powers, so that a
// device or a replayed plan can do it too). The call operator updates one element: parameter p,
// gradient g (already scaled, clipped and decayed by the loop), states s. It is branch-free, so that
// the loop around it vectorises.
//
// A rule that needs norms of whole tensors (LARS, LAMB) has a norm phase: `measure` visits every
// element first, may update states, and returns the value whose norm over the tensor is wanted;
// `adapt` gets the norms of the parameter and of these values; the call operator runs after it.
//
// `nonnegative`, a bit for every state that has no sign, says that a rule bears states of 8 bits
// (rules/quantize.h).
//
// To add an optimizer: a struct in one of the headers below, its name in OptimRules, a class in
// optim/rules.py, a row in tests/optim_table.py. Formulas and sources: docs/adding-an-optimizer.md and
// optim/rules.py.
#pragma once

#include "rules/optim_adaptive.h"
#include "rules/optim_layerwise.h"
#include "rules/optim_sgd.h"
#include "rules/optim_sign.h"

namespace thalweg {
inline namespace THALWEG_ISA {

template <class Rule>
inline constexpr bool has_norm_phase = requires(Rule& rule) { rule.adapt(0.0, 0.0); };

template <class Rule>
inline constexpr bool has_8bit_states = requires { Rule::nonnegative; };

template <class T>
using OptimRules = TypeList<Sgd<T>, Momentum<T>, Adagrad<T>, Adadelta<T>, Rmsprop<T>, RmspropMomentum<T>,
                            RmspropCentered<T>, RmspropCenteredMomentum<T>, Adam<T>, AdamAmsgrad<T>,
                            Adamax<T>, Nadam<T>, Radam<T>, Rprop<T>, Lion<T>, Lars<T>, Lamb<T>>;

// What the loop does to every gradient before the rule and to every parameter around it.
template <class T>
struct OptimStages {
  T grad_scale;          // loss scale, 1/world, clip by norm and the sign of maximize, in one factor
  T clip_value;          // +Inf: off
  T l2;                  // weight decay that goes through the gradient
  T keep;                // 1 - lr*weight_decay where the decay is decoupled, else 1
  T ema_keep, ema_take;  // average = ema_keep*average + ema_take*p

  static THALWEG_RULE OptimStages prepare(const Hyper& h, const OptimStageOptions& options) {
    const bool decoupled = h.decoupled != 0;
    return {static_cast<T>(h.maximize != 0 ? -options.grad_scale : options.grad_scale),
            static_cast<T>(options.clip_value),
            static_cast<T>(decoupled ? 0 : h.weight_decay),
            static_cast<T>(decoupled ? 1 - h.lr * h.weight_decay : 1),
            static_cast<T>(options.ema_decay),
            static_cast<T>(1 - options.ema_decay)};
  }

  THALWEG_RULE T gradient(T g, T p) const {
    g *= grad_scale;
    g = g > clip_value ? clip_value : g;  // NaN compares false and goes through
    g = g < -clip_value ? -clip_value : g;
    return g + l2 * p;
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
