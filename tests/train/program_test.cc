// The program as a person meets it: exit codes, messages, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "core/file_system.h"
#include "core/status.h"
#include "tensor/safetensors.h"
#include "tests/train/program_testing.h"

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Program : public Process {
 public:
  Program(const TempFolder& folder, const Arguments& arguments, const Arguments& environment = {})
      : Process(folder, ProgramBody(TESSERA_PROGRAM, arguments, environment)) {}
};

class ProgramTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { CHECK_EQ(chdir(TESSERA_SOURCE_DIR), 0); }

  Program::Ended Run(const Arguments& arguments, const Arguments& environment = {}) {
    return Program(folder_, arguments, environment).Wait();
  }
  // A short run of the smoke configuration in folder `name`.
  Arguments Smoke(const std::string& name, const Arguments& more = {}) const {
    Arguments arguments = {
        "train",          "configs/smoke.yaml",      "output=" + (folder_ / name),
        "train.epochs=2", "train.log_every_steps=1", "model.drop_path_rate=0.1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  int64_t LogLines(const std::string& run) const {
    std::ifstream file(folder_ / JoinPath(run, "metrics.jsonl"));
    int64_t lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }
  // Waits until the run's log has this many lines, or the program has ended.
  void WaitForLines(const std::string& run, int64_t lines, Program& program) const {
    while (LogLines(run) < lines && program.IsRunning()) {
      SleepMs(2);
    }
  }
  std::string Model(const std::string& run) const {
    return Unwrap(PosixFileSystem().ReadFile(
        folder_ / JoinPath(run, "checkpoints/step_000000018/model.safetensors")));
  }

  TempFolder folder_;
};

struct Mistake {
  Arguments arguments;
  int code;
  std::string message;  // part of the one line
};

TEST_F(ProgramTest, MistakesAreOneLineAndAnExitCode) {
  const std::string output = "output=" + (folder_ / "none");
  const auto train = [&](const Arguments& more) {
    Arguments arguments = {"train", "configs/smoke.yaml", output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  folder_.Write("tab.yaml", "train:\n\tepochs: 3\n");
  folder_.Write("empty.yaml", "");
  folder_.Write("list.yaml", "- 1\n- 2\n");
  folder_.Write("key.yaml", "optim:\n  wieght_decay: 1\n");
  folder_.Write("bytes.yaml", std::string("\x00\xff\x01{{{", 6));
  folder_.Write("file", "text");
  const std::vector<Mistake> mistakes = {
      {{"tarin"}, 2, "unknown command 'tarin'; did you mean 'train'?"},
      {{"--bogus"}, 2, "unknown flag '--bogus'"},
      {{"train"}, 2, "train: config is required"},
      {{"train", "configs/smoke.yaml", "--resum"}, 2, "did you mean '--resume'?"},
      {{"train", "configs/smoke.yaml", "--resume", "--dry-run"}, 2, "excludes"},
      {{"train", "configs/none.yaml"}, 2, "configs/none.yaml"},
      {{"train", "configs"}, 2, "found a directory"},
      {{"train", folder_ / "tab.yaml"}, 2, "tab.yaml:2"},
      {{"train", folder_ / "empty.yaml"}, 2, "data.root is not set"},
      {{"train", folder_ / "list.yaml"}, 2, "list.yaml:1:1"},
      {{"train", folder_ / "key.yaml"}, 2, "did you mean 'weight_decay'?"},
      {{"train", folder_ / "bytes.yaml"}, 2, "bytes.yaml"},
      {train({"train.epochs"}), 2, "expected key=value"},
      {train({"train.epochs=many"}), 2, "expected an integer"},
      {train({"train.epoch=3"}), 2, "did you mean 'epochs'?"},
      {train({"optim.lr=.inf"}), 2, "optim.lr"},
      {train({"optim.betas=[0.9]"}), 2, "optim.betas"},
      {train({"train.accumulate=5"}), 2, "train.accumulate: 5 does not divide"},
      {train({"train.batch_size=301"}), 3, "smaller batch"},
      {train({"train.device=gpu"}), 2, "train.device"},
      // Neither where tests are built nor where they run is there a GPU.
      {train({"train.device=cuda"}), 2, "train.device: found cuda, but "},
      {train({"data.image_size=0"}), 2, "data.image_size"},
      {train({"data.image_size=16384"}), 4, "is available"},
      {train({"model.embed_dims=[65536, 65536]"}), 4, "smaller model"},
      {train({"model.name=davit_tinny"}), 2, "did you mean 'davit_tiny'?"},
      {train({"model.num_classes=9"}), 2, "model.num_classes: found 9"},
      {train({"model.in_chans=1"}), 2, "model.in_chans"},
      {train({"model.num_heads=[3, 2]"}), 2, "do not divide into 3 heads"},
      {train({"data.root=/no/where"}), 3, "no data set at '/no/where'"},
      {train({"data.root=" + (folder_ / "file")}), 3, "no data set"},
      {train({"train.init_weights=/no/where"}), 3, "/no/where"},
      {train({"output="}), 2, "output: "},
      {train({"output=" + (folder_ / "file/run")}), 3, "file"},
      {train({"--resume"}), 3, "without --resume"},
      {{"eval", folder_.path()}, 3, "is it a checkpoint?"},
      {{"eval", folder_ / "a.safetensors"}, 2, "--config"},
      {{"eval", folder_ / "none"}, 3, "none"},
      {{"predict", folder_ / "none", "a.jpg"}, 3, "none"},
      {{"export", folder_ / "none", "a.safetensors"}, 3, "none"},
      {{"import", folder_ / "none.pth", "a", "--model", "davit_tiny"}, 3, "none.pth"},
      {{"import", "tests/tensor/torch_fixtures/hostile.pth", folder_ / "none", "--model", "davit"},
       3,
       "data.pkl: byte"},
      {{"summary", "davit_tinny"}, 2, "did you mean 'davit_tiny'?"},
      {{"bench", "davit_tiny", "train.batch_size=1000000"}, 4, "is available"},
      {{"bench", "davit_tiny", "--steps", "0"}, 2, "--steps"},
      {{"data"}, 2, "subcommand is required"},
      {{"data", "check"}, 2, "config is required"}};
  for (const Mistake& mistake : mistakes) {
    SCOPED_TRACE(absl::StrJoin(mistake.arguments, " "));
    const Program::Ended ended = Run(mistake.arguments);
    EXPECT_EQ(ended.signal, -1);
    EXPECT_EQ(ended.code, mistake.code);
    EXPECT_EQ(ended.out, "");
    EXPECT_THAT(ended.err, AllOf(testing::StartsWith("tessera: "), HasSubstr(mistake.message)));
    // Where memory goes takes a line each.
    const int64_t lines = mistake.code == 4 ? 8 : 1;
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), lines) << ended.err;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
}

TEST_F(ProgramTest, ShowsItsUse) {
  const Program::Ended none = Run({});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("train"));
  for (const Arguments& arguments :
       {Arguments{"--help"}, {"train", "--help"}, {"eval", "-h"}, {"data", "check", "--help"}}) {
    const Program::Ended help = Run(arguments);
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.out, HasSubstr("Usage: tessera"));
    EXPECT_EQ(help.err, "");
  }
  EXPECT_THAT(Run({"train", "--help"}).out, HasSubstr("train.batch_size"));
  EXPECT_EQ(Run({"--version"}).code, 0);
  const Program::Ended models = Run({"models"});
  EXPECT_EQ(models.code, 0);
  EXPECT_THAT(models.out, HasSubstr("28360168"));
  EXPECT_THAT(Run({"models", "davit_tiny"}).out, HasSubstr("drop_path_rate  float"));
}

// The library behind the products cuts some sums by the number of threads, which therefore is the
// same here.
TEST_F(ProgramTest, GivesTheSameBitsEveryTime) {
  for (const std::string run : {"run1", "run2", "run3"}) {
    ASSERT_EQ(Run(Smoke(run), {"OMP_NUM_THREADS=2"}).code, 0);
    EXPECT_TRUE(Model(run) == Model("run1")) << run;
  }
}

TEST_F(ProgramTest, KilledAnywhereResumesToTheSameBits) {
  ASSERT_EQ(Run(Smoke("whole")).code, 0);
  const Arguments often = {"train.save_every_minutes=1e-9"};
  int64_t resumed = 0;
  for (const int64_t lines : {3, 7, 10, 11, 16}) {
    Arguments more = often;
    if (std::filesystem::exists(folder_ / "run/checkpoints") &&
        !std::filesystem::is_empty(folder_ / "run/checkpoints")) {
      more.push_back("--resume");
      ++resumed;
    }
    Program program(folder_, Smoke("run", more));
    WaitForLines("run", lines, program);
    program.Signal(SIGKILL);
    program.Wait();
  }
  EXPECT_GT(resumed, 0);
  Arguments more = often;
  more.push_back("--resume");
  const Program::Ended last = Run(Smoke("run", more));
  EXPECT_EQ(last.code, 0) << last.err;
  EXPECT_TRUE(Model("run") == Model("whole"));
  // An evaluation that was logged but not yet saved is done again.
  EXPECT_GE(LogLines("run"), 20);
}

TEST_F(ProgramTest, SavesAndExitsWith75OnASignal) {
  ASSERT_EQ(Run(Smoke("whole")).code, 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string name = absl::StrCat("run", signal);
    Program program(folder_, Smoke(name));
    WaitForLines(name, 4, program);
    program.Signal(signal);
    const Program::Ended ended = program.Wait();
    EXPECT_EQ(ended.code, 75) << ended.err;
    EXPECT_THAT(ended.err, AllOf(HasSubstr("once more stops at once"), HasSubstr("--resume")));
    EXPECT_EQ(Run(Smoke(name, {"--resume"})).code, 0);
    EXPECT_TRUE(Model(name) == Model("whole"));
  }
}

TEST_F(ProgramTest, EndsAtOnceOnASecondSignalOfEitherKind) {
  Program program(folder_, Smoke("run", {"train.epochs=100000"}));
  WaitForLines("run", 2, program);
  program.Signal(SIGINT);
  program.Signal(SIGTERM);
  const Program::Ended ended = program.Wait();
  // The first may have been served before the second came.
  EXPECT_TRUE(ended.signal == SIGTERM || ended.signal == SIGINT || ended.code == 75)
      << ended.code << " " << ended.signal;
}

TEST_F(ProgramTest, RefusesAFolderInUse) {
  Program first(folder_, Smoke("run", {"train.epochs=100000"}));
  WaitForLines("run", 2, first);
  TempFolder other;
  for (const Arguments& more : {Arguments{}, {"--resume"}}) {
    Arguments arguments = Smoke("run", {"train.epochs=100000"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Program::Ended second = Program(other, arguments).Wait();
    EXPECT_EQ(second.code, 2) << second.err;
    EXPECT_THAT(second.err, HasSubstr(folder_ / "run"));
  }
  EXPECT_TRUE(first.IsRunning());
}

TEST_F(ProgramTest, EvaluatesPredictsAndExportsWhatItTrained) {
  const Program::Ended trained = Run(Smoke("run"));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/metrics.jsonl"));
  EXPECT_FALSE(std::filesystem::is_empty(folder_ / "run/tensorboard"));
  const std::string best = folder_ / "run/best", file = folder_ / "model.safetensors";
  // "done: 18 steps; best top-1 26.00 % in ..."
  const size_t begin = trained.out.find("top-1");
  const std::string accuracy = trained.out.substr(begin, trained.out.find('%') - begin);

  const Program::Ended evaluated = Run({"eval", best, "--classes", "--csv", folder_ / "c.csv",
                                        "--confusion", folder_ / "confusion.png"});
  EXPECT_THAT(evaluated.out, HasSubstr("calibration error"));
  EXPECT_THAT(evaluated.err, HasSubstr("img/s"));
  EXPECT_THAT(Unwrap(PosixFileSystem().ReadFile(folder_ / "c.csv")), HasSubstr("automobile,"));
  EXPECT_GT(std::filesystem::file_size(folder_ / "confusion.png"), 1000u);
  EXPECT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr(accuracy), HasSubstr("automobile")));

  ASSERT_EQ(Run({"export", best, file}).code, 0);
  const Program::Ended again = Run({"eval", file, "--config", folder_ / "run/config.yaml"});
  EXPECT_THAT(again.out, HasSubstr(accuracy)) << again.err;

  const Program::Ended of_run = Run({"eval", folder_ / "run"});
  EXPECT_EQ(of_run.code, 2);
  EXPECT_THAT(of_run.err, HasSubstr(best));

  folder_.Write("cat.png", EncodedPicture(50, 40, 1, ".png"));
  const Program::Ended predicted =
      Run({"predict", best, folder_ / "cat.png", folder_ / "stdout", "--top", "3"});
  EXPECT_EQ(predicted.code, 3);  // of the two pictures one is none
  EXPECT_THAT(predicted.out, HasSubstr("%"));
  EXPECT_EQ(std::count(predicted.out.begin(), predicted.out.end(), '\n'), 4);
  EXPECT_THAT(predicted.err, HasSubstr("1 of 2 pictures"));
  const Program::Ended attention =
      Run({"predict", best, folder_ / "cat.png", "--attention", folder_ / "maps"});
  EXPECT_EQ(attention.code, 0) << attention.err;
  EXPECT_GT(std::filesystem::file_size(folder_ / "maps/cat.attention.png"), 1000u);
  EXPECT_EQ(Run({"export", best, folder_ / "none/a.safetensors"}).code, 3);
  EXPECT_EQ(Run({"export", best}).code, 2);
  const Program::Ended onnx = Run({"export", best, "--onnx", folder_ / "model.onnx"});
  EXPECT_EQ(onnx.code, 0) << onnx.err;
  EXPECT_THAT(onnx.out, HasSubstr("images [batch, 3, "));
  EXPECT_GT(std::filesystem::file_size(folder_ / "model.onnx"), 1000u);
}

// Imports what torch.save wrote of the authors' DaViT; torch_fixtures/make.py says what it holds.
TEST_F(ProgramTest, ImportsCheckpointsOfPyTorch) {
  const std::string pth = "tests/tensor/torch_fixtures/davit.pth", out = folder_ / "w.safetensors";
  folder_.Write("model.yaml",
                "model: {name: davit, depths: [1, 1], embed_dims: [4, 8], num_heads: [1, 2], "
                "num_classes: 3}\ndata: {image_size: 32}\n");
  const std::string model = folder_ / "model.yaml";
  const Program::Ended imported = Run({"import", pth, out, "--model", model});
  ASSERT_EQ(imported.code, 0) << imported.err;
  EXPECT_THAT(imported.out, HasSubstr("76 tensors loaded"));
  const auto file = SafetensorsFile::Open(PosixFileSystem(), out);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->entries().size(), 76u);
  for (size_t n = 0; n < file->entries().size(); ++n) {
    const Tensor tensor = Unwrap(file->Read(file->entries()[n].name));
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      ASSERT_EQ(tensor.data<float>()[i], static_cast<float>(n) + static_cast<float>(i) / 1024)
          << file->entries()[n].name;
    }
  }
  // The same bits after import, export, and import of that.
  const std::string again = folder_ / "again.safetensors", third = folder_ / "third.safetensors";
  ASSERT_EQ(Run({"export", out, again, "--config", model}).code, 0);
  ASSERT_EQ(Run({"import", again, third, "--model", model}).code, 0);
  const auto read = [](const std::string& path) {
    return Unwrap(PosixFileSystem().ReadFile(path));
  };
  EXPECT_TRUE(read(out) == read(again));
  EXPECT_TRUE(read(out) == read(third));

  folder_.Write("cat.png", EncodedPicture(50, 40, 1, ".png"));
  const Program::Ended direct = Run({"predict", pth, folder_ / "cat.png", "--config", model});
  EXPECT_EQ(direct.code, 0) << direct.err;
  EXPECT_EQ(direct.out, Run({"predict", out, folder_ / "cat.png", "--config", model}).out);

  // Whatever does not fit is one error and no file.
  const Arguments bad = {"import", pth, folder_ / "none", "--model", model};
  const auto more = [&](const Arguments& overrides) {
    Arguments arguments = bad;
    arguments.insert(arguments.end(), overrides.begin(), overrides.end());
    return Run(arguments);
  };
  EXPECT_THAT(more({"model.num_classes=4"}).err,
              HasSubstr("head.fc.weight is F32[3, 8] in the file, expected F32[4, 8]"));
  EXPECT_THAT(more({"model.depths=[1, 2]"}).err, HasSubstr("not in the file: stages.1.blocks.1.0"));
  EXPECT_EQ(more({"model.depths=[1, 2]"}).code, 3);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
  const Program::Ended fresh = more({"model.num_classes=4", "--finetune"});
  EXPECT_EQ(fresh.code, 0) << fresh.err;
  EXPECT_THAT(fresh.out, HasSubstr("left fresh: head.fc.weight"));
}

TEST_F(ProgramTest, WritesPlainLinesWithoutATerminal) {
  for (const std::string term : {"TERM=dumb", "TERM=xterm-256color"}) {
    std::filesystem::remove_all(folder_ / "run");
    const Program::Ended ended = Run(Smoke("run", {"train.epochs=1"}), {term});
    EXPECT_EQ(ended.code, 0);
    EXPECT_FALSE(absl::StrContains(ended.err, "\x1b"));
    EXPECT_FALSE(absl::StrContains(ended.err, "\r"));
    EXPECT_THAT(ended.err, HasSubstr("step 9/9"));
  }
}

TEST_F(ProgramTest, LeavesBadPicturesOutOfTrainingAndSaysSo) {
  WriteClassFolders(folder_, 66, 9);
  folder_.Write("train/ant/3.jpg", "no picture");
  const Arguments data = {"data.root=" + folder_.path(), "train.batch_size=16", "train.epochs=1"};
  const Program::Ended trained = Run(Smoke("run", data));
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_THAT(trained.err, HasSubstr("train/ant/3.jpg"));
  folder_.Write("val/bee/67.jpg", "no picture");
  const Program::Ended evaluated = Run(Smoke("run2", data));
  EXPECT_EQ(evaluated.code, 3);
  EXPECT_THAT(evaluated.err, AllOf(HasSubstr("val/bee/67.jpg"), HasSubstr("data.skip_bad=true")));
}

}  // namespace
}  // namespace tessera::train
