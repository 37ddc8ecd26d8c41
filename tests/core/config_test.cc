#include "core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <limits>

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct OptimConfig {
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};
  double weight_decay = 0.05;
  std::string name = "adamw";
  template <class V>
  void VisitFields(V& v) {
    v("lr", lr, "peak learning rate", AtLeast(0.0));
    v("betas", betas, "decay of the moments", HalfOpen(0.0, 1.0));
    v("weight_decay", weight_decay, "applied to matrices only", AtLeast(0.0));
    v("name", name, "update rule", OneOf({"adamw", "sgd"}));
  }
};

struct RunConfig {
  int64_t steps = 100;
  bool resume = false;
  std::string root = "data";
  std::vector<int64_t> sizes;
  std::vector<std::string> tags;
  OptimConfig optim;
  ConfigNode model;
  template <class V>
  void VisitFields(V& v) {
    v("steps", steps, "number of steps", AtLeast(1));
    v("resume", resume, "go on with the newest checkpoint");
    v("root", root, "folder of the data");
    v("sizes", sizes, "image sizes", MoreThan(0));
    v("tags", tags, "labels of the run");
    v("optim", optim, "the optimizer");
    v("model", model, "family and its fields");
  }
};

struct ModelConfig {
  std::vector<int64_t> depths = {1, 1, 3, 1};
  int64_t num_classes = 1000;
  template <class V>
  void VisitFields(V& v) {
    v("depths", depths, "blocks of each stage", AtLeast(1));
    v("num_classes", num_classes, "classes", AtLeast(1));
  }
};

absl::Status Read(absl::string_view text, RunConfig* config) {
  ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(text, "a.yaml"));
  return ReadConfig(node, config);
}

std::string ErrorOf(absl::string_view text) {
  RunConfig config;
  return std::string(Read(text, &config).message());
}

std::string OverrideError(const std::string& text) {
  ConfigNode root{.kind = ConfigNode::Kind::kMap};
  RunConfig config;
  absl::Status status = ApplyOverride(text, &root);
  if (status.ok()) status = ReadConfig(root, &config);
  return std::string(status.message());
}

TEST(Config, ReadsEveryTypeAndKeepsWhatIsNotNamed) {
  RunConfig config;
  ASSERT_TRUE(Read("steps: 7\n"
                   "resume: true\n"
                   "root: /data/imagenet\n"
                   "sizes: [224, 96]\n"
                   "tags:\n- a b\n- '7'\n"
                   "optim:\n  lr: 3e-4\n  betas: [0.8]\n",
                   &config)
                  .ok());
  EXPECT_EQ(config.steps, 7);
  EXPECT_TRUE(config.resume);
  EXPECT_EQ(config.root, "/data/imagenet");
  EXPECT_THAT(config.sizes, ElementsAre(224, 96));
  EXPECT_THAT(config.tags, ElementsAre("a b", "7"));
  EXPECT_EQ(config.optim.lr, 3e-4);
  EXPECT_THAT(config.optim.betas, ElementsAre(0.8));
  EXPECT_EQ(config.optim.weight_decay, 0.05);
}

TEST(Config, AnEmptyFileAndAnEmptySectionKeepTheDefaults) {
  RunConfig config;
  EXPECT_TRUE(Read("", &config).ok());
  EXPECT_TRUE(Read("# nothing\noptim:\n  # lr: 3\n", &config).ok());
  EXPECT_EQ(config.optim.lr, 1e-3);
}

TEST(Config, ErrorsNameFileLineColumnKeyAndSuggestion) {
  EXPECT_EQ(ErrorOf("steps: 5\noptim:\n  lr: 1\n  wieght_decay: 0.1\n"),
            "a.yaml:4:3: unknown key 'wieght_decay' in optim; did you mean 'weight_decay'?");
  EXPECT_EQ(ErrorOf("betas: [0.9]\n"),
            "a.yaml:1:1: unknown key 'betas'; did you mean 'optim.betas'?");
  EXPECT_EQ(ErrorOf("optim: {zzzzzz: 1}\n"),
            "a.yaml:1:9: unknown key 'zzzzzz' in optim; known keys: lr, betas, weight_decay, name");
  EXPECT_EQ(ErrorOf("optim:\n  lr: fast\n"),
            "a.yaml:2:7: optim.lr: expected a number >= 0, found 'fast'");
  EXPECT_EQ(ErrorOf("optim:\n  betas: [0.9, 1.0]\n"),
            "a.yaml:2:16: optim.betas[1]: expected a number in [0, 1), found '1.0'");
  EXPECT_EQ(ErrorOf("optim:\n  name: adamv\n"),
            "a.yaml:2:9: optim.name: expected one of adamw, sgd, found 'adamv'; "
            "did you mean 'adamw'?");
  EXPECT_EQ(ErrorOf("steps: 0"), "a.yaml:1:8: steps: expected an integer >= 1, found '0'");
  EXPECT_EQ(ErrorOf("steps: 1e5"), "a.yaml:1:8: steps: expected an integer >= 1, found '1e5'");
  EXPECT_EQ(ErrorOf("steps: '7'"),
            "a.yaml:1:8: steps: expected an integer >= 1, found the string \"7\"");
  EXPECT_EQ(ErrorOf("resume: yes"), "a.yaml:1:9: resume: expected true or false, found 'yes'");
  EXPECT_EQ(ErrorOf("sizes: 5"),
            "a.yaml:1:8: sizes: expected a list in the form [a, b], found '5'");
  EXPECT_EQ(ErrorOf("optim: 5"), "a.yaml:1:8: optim: expected a section with keys, found '5'");
  EXPECT_THAT(ErrorOf("root:\n"), HasSubstr("root: expected a string, found nothing"));
  EXPECT_THAT(ErrorOf("root: [a]"), HasSubstr("root: expected a string, found a list"));
}

TEST(Config, NumbersBeyondTheirTypeAreRefused) {
  EXPECT_THAT(ErrorOf("steps: 9223372036854775808"), HasSubstr("expected an integer"));
  EXPECT_THAT(ErrorOf("optim: {lr: 1e999}"), HasSubstr("expected a number"));
  EXPECT_THAT(ErrorOf("optim: {lr: nan}"), HasSubstr("expected a number"));
  EXPECT_THAT(ErrorOf("optim: {lr: -.inf}"), HasSubstr("expected a number"));
}

TEST(Config, AFailedReadChangesNothing) {
  RunConfig config;
  EXPECT_FALSE(Read("steps: 5\nresume: maybe\n", &config).ok());
  EXPECT_EQ(config.steps, 100);
}

TEST(Config, RefusesWhatYamlHasBeyondPlainData) {
  EXPECT_EQ(ErrorOf("root: &x data\n"), "a.yaml:1:7: anchors (&name) are not supported");
  EXPECT_THAT(ErrorOf("optim: &x {lr: 1}\nmodel: *x\n"), HasSubstr("anchors"));
  EXPECT_THAT(ErrorOf("root: *x\n"), HasSubstr("a.yaml:1:7"));
  EXPECT_EQ(ErrorOf("root: !!python/object x\n"), "a.yaml:1:7: tags (!name) are not supported");
  EXPECT_EQ(ErrorOf("steps: 1\nsteps: 2\n"), "a.yaml:2:1: key 'steps' is given twice");
  EXPECT_EQ(ErrorOf("steps: 1\n---\nsteps: 2\n"), "a.yaml: more than one document");
  EXPECT_THAT(ErrorOf("? [a]\n: 1\n"), HasSubstr("a key must be a name"));
  EXPECT_THAT(ErrorOf("steps: [1\nb: 2\n"), HasSubstr("a.yaml:"));
}

TEST(Config, HostileTextEndsInAnErrorAndNotInACrash) {
  EXPECT_THAT(ErrorOf(std::string(100000, '[')), HasSubstr("a.yaml"));
  EXPECT_THAT(ErrorOf(std::string(40, '[') + std::string(40, ']')),
              HasSubstr("nested more than 32 levels deep"));
  EXPECT_THAT(ErrorOf(std::string((1 << 20) + 1, ' ')), HasSubstr("at most 1048576"));
  std::string many_keys;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&many_keys, "k", i, ": 1\n");
  EXPECT_THAT(ErrorOf(many_keys), HasSubstr("a.yaml:1001:1: more than 1000 keys"));
  EXPECT_EQ(ErrorOf(std::string(201, 'k') + ": 1\n"),
            "a.yaml:1:1: a key of 201 bytes, at most 200 are allowed");
  for (const std::string& text : {std::string("\0", 1), std::string("a: \"\\q\""), std::string("{"),
                                  std::string("- a: ["), std::string("%TAG ! x\n---\na: 1"),
                                  std::string("\t- x: 1"), std::string("a: |9999999999\n x")}) {
    RunConfig config;
    EXPECT_FALSE(Read(text, &config).ok()) << testing::PrintToString(text);
  }
}

TEST(Config, OverridesAreCheckedLikeTheFile) {
  EXPECT_EQ(OverrideError("optim.lr=3e-4"), "");
  EXPECT_EQ(OverrideError("optim.betas=[0.5, 0.6]"), "");
  EXPECT_EQ(OverrideError("root="), "");
  EXPECT_EQ(OverrideError("optim.rl=1"),
            "override 'optim.rl=1': unknown key 'rl' in optim; did you mean 'lr'?");
  EXPECT_EQ(OverrideError("steps=-1"),
            "override 'steps=-1': steps: expected an integer >= 1, found '-1'");
  EXPECT_EQ(OverrideError("steps.x=1"),
            "override 'steps.x=1': steps: expected an integer >= 1, found a section");
  EXPECT_EQ(OverrideError("steps"), "override 'steps': expected key=value, as in optim.lr=0.001");
  EXPECT_THAT(OverrideError("=1"), HasSubstr("empty name"));
  EXPECT_THAT(OverrideError("optim..lr=1"), HasSubstr("empty name"));
  EXPECT_THAT(OverrideError("steps=[1"), HasSubstr("override 'steps=[1'"));
}

TEST(Config, DumpReadsBackToTheSameConfig) {
  RunConfig config;
  config.root = "coco: \"x\"\n\t#1";
  config.tags = {"", "null", "true", "1e3", "-", "a,b", "\xC3\xA9", ".inf", "- x", "NO"};
  config.sizes = {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()};
  for (int64_t& size : config.sizes) size = std::max<int64_t>(size, 1);
  config.optim.lr = 0.1 + 0.2;
  config.optim.weight_decay = std::numeric_limits<double>::denorm_min();
  config.optim.betas = {};
  const std::string dump = DumpConfig(config);
  RunConfig back;
  const absl::Status status = Read(dump, &back);
  ASSERT_TRUE(status.ok()) << status << "\n" << dump;
  EXPECT_EQ(back.root, config.root);
  EXPECT_EQ(back.tags, config.tags);
  EXPECT_EQ(back.sizes, config.sizes);
  EXPECT_EQ(std::bit_cast<uint64_t>(back.optim.lr), std::bit_cast<uint64_t>(config.optim.lr));
  EXPECT_EQ(back.optim.weight_decay, config.optim.weight_decay);
  EXPECT_TRUE(back.optim.betas.empty());
  EXPECT_EQ(DumpConfig(back), dump);
}

TEST(Config, DumpIsPlainYaml) {
  OptimConfig config;
  EXPECT_EQ(DumpConfig(config),
            "lr: 0.001\nbetas: [0.9, 0.999]\nweight_decay: 0.05\nname: adamw\n");
}

TEST(Config, HashFollowsTheValuesAndNothingElse) {
  RunConfig a, b;
  ASSERT_TRUE(Read("{steps: 7, optim: {lr: 0.5}}", &a).ok());
  ASSERT_TRUE(Read("optim:\n  lr: 5e-1\nsteps: 7\n", &b).ok());
  EXPECT_EQ(HashConfig(a), HashConfig(b));
  b.optim.lr = 0.25;
  EXPECT_NE(HashConfig(a), HashConfig(b));
  EXPECT_EQ(HashConfig(OptimConfig()), 3168861816351163726u)
      << "part of saved runs: must never change";
}

TEST(Config, HelpListsEveryFieldWithItsLimits) {
  const std::string help = DescribeConfig<RunConfig>();
  EXPECT_THAT(help, HasSubstr("optim.betas"));
  EXPECT_THAT(help, HasSubstr("[0.9, 0.999]"));
  EXPECT_THAT(help, HasSubstr("in [0, 1)"));
  EXPECT_THAT(help, HasSubstr("one of adamw, sgd"));
  EXPECT_THAT(help, HasSubstr("applied to matrices only"));
  EXPECT_EQ(DescribeConfig<ModelConfig>("model"),
            "model.depths  [int] = [1, 1, 3, 1], >= 1\n"
            "    blocks of each stage\n"
            "model.num_classes  int = 1000, >= 1\n"
            "    classes\n");
}

TEST(ConfigNode, IsReadLaterWithTheSameErrors) {
  RunConfig config;
  ASSERT_TRUE(Read("steps: 2\nmodel:\n  name: davit_tiny\n  depts: [1, 2]\n", &config).ok());
  EXPECT_EQ(*config.model.TakeString("name"), "davit_tiny");
  ModelConfig model;
  EXPECT_EQ(ReadConfig(config.model, &model).message(),
            "a.yaml:4:3: unknown key 'depts' in model; did you mean 'depths'?");
  EXPECT_EQ(config.model.TakeString("name").status().message(),
            "a.yaml:3:3: model.name is required");
}

TEST(ConfigNode, IsOverriddenAndDumpedLikeAnyField) {
  ConfigNode root = *ParseYaml("model: {name: davit_tiny, depths: [1, 1], num_classes: 10}", "a");
  ASSERT_TRUE(ApplyOverride("model.depths=[1,1,2]", &root).ok());
  RunConfig config;
  ASSERT_TRUE(ReadConfig(root, &config).ok());
  EXPECT_THAT(DumpConfig(config),
              HasSubstr("model:\n  name: davit_tiny\n  depths: [1, 1, 2]\n  num_classes: 10\n"));
  ASSERT_TRUE(config.model.TakeString("name").ok());
  ModelConfig model;
  ASSERT_TRUE(ReadConfig(config.model, &model).ok());
  EXPECT_THAT(model.depths, ElementsAre(1, 1, 2));
  EXPECT_EQ(model.num_classes, 10);
}

class ConfigFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "config_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    std::filesystem::create_directories(dir_ + "/base");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
    return dir_ + "/" + name;
  }

  std::string dir_;
};

TEST_F(ConfigFiles, ExtendOthersAndLaterOnesWin) {
  Write("base/one.yaml", "extends: two.yaml\nsteps: 1\noptim: {lr: 0.1}\n");
  Write("base/two.yaml", "steps: 2\nroot: two\noptim: {weight_decay: 0.2}\n");
  Write("three.yaml", "steps: 3\ntags: [x]\n");
  const std::string path =
      Write("run.yaml", "extends: [base/one.yaml, three.yaml]\noptim:\n  name: sgd\ntags: [y]\n");
  RunConfig config;
  const absl::Status status = ReadConfigFile(path, {"optim.lr=0.5"}, &config);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(config.steps, 3);
  EXPECT_EQ(config.root, "two");
  EXPECT_EQ(config.optim.lr, 0.5);
  EXPECT_EQ(config.optim.weight_decay, 0.2);
  EXPECT_EQ(config.optim.name, "sgd");
  EXPECT_THAT(config.tags, ElementsAre("y"));
}

TEST_F(ConfigFiles, ErrorsInABaseNameTheBase) {
  Write("base/one.yaml", "steps: 1\nsteqs: 2\n");
  const std::string path = Write("run.yaml", "extends: base/one.yaml\n");
  RunConfig config;
  EXPECT_EQ(ReadConfigFile(path, {}, &config).message(),
            dir_ + "/base/one.yaml:2:1: unknown key 'steqs'; did you mean 'steps'?");
}

TEST_F(ConfigFiles, CyclesAndMissingBasesAreErrors) {
  Write("a.yaml", "extends: b.yaml\n");
  Write("b.yaml", "steps: 2\nextends: base/../a.yaml\n");
  RunConfig config;
  const absl::Status cycle = ReadConfigFile(dir_ + "/a.yaml", {}, &config);
  EXPECT_EQ(cycle.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cycle.message()), HasSubstr("b.yaml:2:10: extends: 'base/../a.yaml' "));
  Write("c.yaml", "extends: none.yaml\n");
  EXPECT_EQ(ReadConfigFile(dir_ + "/c.yaml", {}, &config).message(),
            dir_ + "/c.yaml:1:10: extends: " + dir_ +
                "/none.yaml: cannot open: No such file or directory");
  EXPECT_EQ(ReadConfigFile(dir_ + "/none.yaml", {}, &config).code(),
            absl::StatusCode::kInvalidArgument);
  Write("d.yaml", "extends: {a: 1}\n");
  EXPECT_FALSE(ReadConfigFile(dir_ + "/d.yaml", {}, &config).ok());
}

TEST_F(ConfigFiles, ABaseUsedManyTimesOverEndsInAnError) {
  for (int i = 0; i < 20; ++i) {
    const std::string next = absl::StrFormat("f%d.yaml", i + 1);
    Write(absl::StrFormat("f%d.yaml", i), absl::StrFormat("extends: [%s, %s]\n", next, next));
  }
  Write("f20.yaml", "steps: 5\n");
  RunConfig config;
  EXPECT_THAT(std::string(ReadConfigFile(dir_ + "/f0.yaml", {}, &config).message()),
              HasSubstr("more than 64 files"));
}

}  // namespace
}  // namespace tessera
