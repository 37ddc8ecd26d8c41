#include "train/bad_steps.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/status.h"
#include "train/find_nonfinite.h"
#include "train/snapshot.h"

namespace tessera::train {
namespace {

constexpr double kDecay = 0.98;              // of the running average, over some fifty steps
constexpr int64_t kMinStepsToRecover = 100;  // where epochs are shorter

// The newest undamaged checkpoint that was not saved between skipped steps.
absl::StatusOr<Checkpoint> OpenCheckpointFromBefore(const RunParts& run) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, ListCheckpoints(run.fs, run.run_dir));
  for (const int64_t step : steps) {
    absl::StatusOr<Checkpoint> checkpoint =
        Checkpoint::Open(run.fs, CheckpointPath(run.run_dir, step));
    if (checkpoint.ok() && checkpoint->state().skipped_in_a_row == 0) return checkpoint;
  }
  return absl::NotFoundError("no checkpoint to go back to");
}

absl::Status RollBack(const RunParts& run, const Checkpoint& checkpoint, TrainState* state) {
  RETURN_IF_ERROR(LoadSnapshot(checkpoint, run.store, run.optimizer));
  state->updates = checkpoint.state().updates;
  state->mean_loss = checkpoint.state().mean_loss;
  state->skipped_in_a_row = 0;
  state->rolled_back_at = state->step;
  LOG(WARNING) << absl::StrFormat("step %d: the weights go back to %s", state->step,
                                  checkpoint.path());
  return absl::OkStatus();
}

absl::Status Diverged(const RunParts& run, const Batch& batch, const TrainState& state,
                      absl::string_view why) {
  const std::string origin =
      FindNonFinite(run.model, run.store, run.options, batch.images, batch.targets, state.step - 1);
  return NumericError(absl::StrFormat(
      "step %d: %d steps in a row had to be skipped, and %s; %s%s. A smaller optim.lr, a longer "
      "optim.warmup_epochs or optim.clip_grad=1 may help",
      state.step, state.skipped_in_a_row, why,
      origin.empty() ? "the loss of the last one is too large, but finite"
                     : "the first number that is not finite is in ",
      origin));
}

}  // namespace

double MaxLoss(double factor, const TrainState& state) {
  if (factor == 0 || state.updates == 0) return std::numeric_limits<double>::infinity();
  return factor * state.mean_loss;
}

absl::Status FollowStep(const RunParts& run, const StepResult& result, const Batch& batch,
                        TrainState* state) {
  if (result.updated) {
    state->mean_loss =
        state->updates == 0 ? result.loss : kDecay * state->mean_loss + (1 - kDecay) * result.loss;
    ++state->updates;
    state->skipped_in_a_row = 0;
    return absl::OkStatus();
  }
  ++state->skipped_in_a_row;
  LOG(WARNING) << absl::StrFormat(
      "step %d skipped, %d in a row: the loss is %g, on average %.4g, the gradient's norm %g",
      state->step, state->skipped_in_a_row, result.loss, state->mean_loss, result.grad_norm);
  if (state->skipped_in_a_row < kMaxSkippedInARow) return absl::OkStatus();
  const int64_t since = state->step - state->rolled_back_at;
  if (state->rolled_back_at > 0 && since < std::max(run.steps_per_epoch, kMinStepsToRecover)) {
    return Diverged(run, batch, *state,
                    absl::StrCat("the weights went back at step ", state->rolled_back_at));
  }
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpointFromBefore(run);
  if (!checkpoint.ok()) return Diverged(run, batch, *state, checkpoint.status().message());
  return RollBack(run, *checkpoint, state);
}

}  // namespace tessera::train
