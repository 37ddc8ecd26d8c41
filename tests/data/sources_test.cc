#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>

#include "data/source.h"
#include "data/sources/classes.h"
#include "data/sources/names.h"
#include "tests/data/data_testing.h"

namespace tessera {
namespace {

using internal::ExpandBraces;
using internal::NaturalLess;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class SourcesTest : public testing::Test {
 protected:
  SourcesTest() { config_.root = folder_.path(); }

  std::unique_ptr<ImageSource> Open(Split split = Split::kTrain) const {
    return Unwrap(OpenSource(config_, split));
  }
  std::string OpenError(Split split = Split::kTrain) const {
    const auto source = OpenSource(config_, split);
    return source.ok() ? "no error" : Message(source.status());
  }

  TempFolder folder_;
  DataConfig config_;
};

std::vector<int32_t> Labels(const ImageSource& source) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < source.num_samples(); ++i) labels.push_back(source.label(i));
  return labels;
}

std::vector<std::string> BaseNames(const ImageSource& source) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < source.num_samples(); ++i) names.push_back(BaseName(source.name(i)));
  return names;
}

std::string ReadText(const ImageSource& source, int64_t i) {
  std::vector<uint8_t> bytes;
  EXPECT_TRUE(source.ReadBytes(i, &bytes).ok());
  return std::string(bytes.begin(), bytes.end());
}

TEST(Names, NumbersInNamesCompareByValue) {
  EXPECT_TRUE(NaturalLess("a2", "a10"));
  EXPECT_FALSE(NaturalLess("a10", "a2"));
  EXPECT_TRUE(NaturalLess("a02", "a2"));
  EXPECT_TRUE(NaturalLess("A2", "a3"));
  EXPECT_TRUE(NaturalLess("a", "a1"));
  EXPECT_FALSE(NaturalLess("a", "a"));
  EXPECT_TRUE(NaturalLess("x99999999999999999999999", "x100000000000000000000000"));
}

TEST(Names, BracesExpandToRanges) {
  EXPECT_THAT(*ExpandBraces("a-{08..11}.tar"),
              ElementsAre("a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"));
  EXPECT_THAT(*ExpandBraces("{0..1}/{3..4}"), ElementsAre("0/3", "0/4", "1/3", "1/4"));
  for (const char* bad : {"{1..", "{2..1}", "{a..b}", "{1}", "{0..999999999}", "{-1..2}"}) {
    EXPECT_FALSE(ExpandBraces(bad).ok()) << bad;
  }
}

TEST_F(SourcesTest, FoldersAreClassesInNaturalOrder) {
  folder_.Write("train/class10/b.PNG", "1");
  folder_.Write("train/class2/x10.jpg", "2");
  folder_.Write("train/class2/x9.JPEG", "3");
  folder_.Write("train/class2/notes.txt", "no picture");
  folder_.Write("train/.hidden/x.jpg", "no class");
  const auto source = Open();
  EXPECT_THAT(source->class_names(), ElementsAre("class2", "class10"));
  EXPECT_THAT(BaseNames(*source), ElementsAre("x9.JPEG", "x10.jpg", "b.PNG"));
  EXPECT_THAT(Labels(*source), ElementsAre(0, 0, 1));
  EXPECT_EQ(ReadText(*source, 0), "3");
  EXPECT_EQ(ReadText(*source, 2), "1");
}

TEST_F(SourcesTest, LinksAreFollowed) {
  folder_.Write("elsewhere/x.jpg", "far");
  folder_.Write("train/a/y.jpg", "near");
  std::filesystem::create_directory_symlink(folder_ / "elsewhere", folder_ / "train/b");
  const auto source = Open();
  ASSERT_EQ(source->num_samples(), 2);
  EXPECT_EQ(ReadText(*source, 1), "far");
}

TEST_F(SourcesTest, AClassFileNumbersTheFolders) {
  folder_.Write("class_index.tsv", "0\tn1\ttench\n1\tn2\tgoldfish\n2\tn3\tshark\n");
  folder_.Write("train/n3/a.jpg", "");
  folder_.Write("train/n1/a.jpg", "");
  const auto source = Open();
  EXPECT_THAT(source->class_names(), ElementsAre("tench", "goldfish", "shark"));
  EXPECT_THAT(Labels(*source), ElementsAre(0, 2));
  folder_.Write("train/n4/a.jpg", "");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("'n4'"), HasSubstr("class_index.tsv")));
}

TEST_F(SourcesTest, DamagedClassFilesAreErrors) {
  folder_.Write("train/a/a.jpg", "");
  config_.class_index = "classes";
  EXPECT_THAT(OpenError(), HasSubstr("data.class_index"));
  const std::pair<const char*, const char*> cases[] = {
      {"", "no class"},           {"0\ta\n2\tb\n", "class 1 is missing"},
      {"0\ta\n0\tb\n", ":2:"},    {"a\na\n", "twice"},
      {"x\ta\n", "found 'x\ta'"}, {"99999999\ta\n", "expected 'index"}};
  for (const auto& [text, expected] : cases) {
    folder_.Write("classes", text);
    EXPECT_THAT(OpenError(), HasSubstr(expected)) << text;
  }
}

TEST_F(SourcesTest, ALabelFileServesAFlatFolder) {
  folder_.Write("val/one picture.jpg", "1");
  folder_.Write("val/2.jpg", "2");
  folder_.Write("val.txt", "\xEF\xBB\xBF# comment\none picture.jpg\t4\r\n\n2.jpg 0\n");
  const auto source = Open(Split::kVal);
  EXPECT_THAT(Labels(*source), ElementsAre(4, 0));
  EXPECT_EQ(ReadText(*source, 0), "1");
  EXPECT_EQ(source->num_classes(), 5);
  config_.labels = "{split}.txt";
  EXPECT_EQ(Open(Split::kVal)->num_samples(), 2);
}

TEST_F(SourcesTest, LabelFilesMayBeRelativeToTheirOwnFolder) {
  folder_.Write("images/a.jpg", "a");
  folder_.Write("list.txt", "images/a.jpg\t0\n");
  config_.labels = "list.txt";
  EXPECT_EQ(ReadText(*Open(), 0), "a");
}

TEST_F(SourcesTest, BadLabelFilesAreErrors) {
  config_.labels = "l.txt";
  EXPECT_THAT(OpenError(), HasSubstr("data.labels"));
  const std::pair<const char*, const char*> cases[] = {
      {"", "no sample"},
      {"a.jpg\t-1\n", "l.txt:1: found '-1'"},
      {"a.jpg\t1e9\n", ":1:"},
      {"a.jpg\n", "expected 'path<TAB>class index'"},
      {"\t3\n", "without a path"},
      {"gone.jpg\t0\n", "gone.jpg"},
      {"a.jpg\t9999999\n", "expected the number"}};
  for (const auto& [text, expected] : cases) {
    folder_.Write("l.txt", text);
    EXPECT_THAT(OpenError(), HasSubstr(expected)) << text;
  }
}

TEST_F(SourcesTest, ShardsWithClassFoldersGiveTheFoldersOrder) {
  folder_.Write("train-000000.tar", TarMemberBytes("./bee/1.jpg", "first") +
                                        TarMemberBytes("bee/", "", '5') +
                                        TarMemberBytes("ant/2.jpg", std::string(700, 'x')) +
                                        TarMemberBytes("ant/readme.txt", "no") + TarEnd());
  folder_.Write("train-000001.tar", TarMemberBytes("data/cat/3.jpg", "third") + TarEnd());
  const auto source = Open();
  EXPECT_THAT(source->class_names(), ElementsAre("ant", "bee", "cat"));
  EXPECT_THAT(Labels(*source), ElementsAre(1, 0, 2));
  EXPECT_EQ(ReadText(*source, 0), "first");
  EXPECT_EQ(ReadText(*source, 1), std::string(700, 'x'));
  EXPECT_EQ(ReadText(*source, 2), "third");
  EXPECT_EQ(source->name(2), folder_ / "train-000001.tar:data/cat/3.jpg");
}

TEST_F(SourcesTest, ShardsWithPairsTakeTheLabelBesideThePicture) {
  folder_.Write("a.tar", TarMemberBytes("x/1.jpg", "one") + TarMemberBytes("x/1.cls", "7\n") +
                             TarMemberBytes("x/2.cls", "3") + TarMemberBytes("x/2.json", "{}") +
                             TarMemberBytes("x/2.png", "two") + TarEnd());
  config_.train_split = "{a..b}.tar";
  EXPECT_THAT(OpenError(), HasSubstr("range"));
  config_.train_split = "a.tar";
  const auto source = Open();
  EXPECT_THAT(Labels(*source), ElementsAre(7, 3));
  EXPECT_EQ(source->num_classes(), 8);
  EXPECT_EQ(ReadText(*source, 1), "two");
}

TEST_F(SourcesTest, TheRootMayBeAShardListWithALayoutPrefix) {
  for (int i = 0; i < 3; ++i) {
    folder_.Write(absl::StrCat("s-", i, ".tar"),
                  TarMemberBytes("a/x.jpg", absl::StrCat(i)) + TarEnd());
  }
  config_.root = "shards:" + folder_ / "s-{0..2}.tar";
  const auto source = Open(Split::kVal);
  ASSERT_EQ(source->num_samples(), 3);
  EXPECT_EQ(ReadText(*source, 2), "2");
  config_.root = "tars:" + folder_.path();
  EXPECT_THAT(OpenError(), HasSubstr("unknown layout 'tars'"));
  config_.root = "idx:" + folder_.path();
  config_.format = "folder";
  EXPECT_THAT(OpenError(), HasSubstr("data.format"));
}

TEST_F(SourcesTest, LongNamesOfGnuAndPaxAreRead) {
  const std::string folder(150, 'd');
  const std::string long_name = folder + "/" + std::string(120, 'n') + ".jpg";
  const std::string record = "path=" + long_name + "\n";
  const std::string pax = absl::StrCat(record.size() + 4, " ", record);
  folder_.Write("train.tar",
                TarMemberBytes("././@LongLink", long_name + std::string(1, '\0'), 'L') +
                    TarMemberBytes(long_name, "gnu") + TarMemberBytes("pax", pax, 'x') +
                    TarMemberBytes("short/name.jpg", "pax") + TarEnd());
  const auto source = Open();
  EXPECT_THAT(source->class_names(), ElementsAre(folder));
  EXPECT_EQ(ReadText(*source, 0), "gnu");
  EXPECT_EQ(ReadText(*source, 1), "pax");
  EXPECT_THAT(source->name(0), HasSubstr(long_name));
  EXPECT_THAT(source->name(1), HasSubstr(long_name));
}

TEST_F(SourcesTest, TheIndexOfAShardIsKeptUntilTheShardChanges) {
  folder_.Write("train.tar", TarMemberBytes("a/1.jpg", "one") + TarEnd());
  EXPECT_EQ(Open()->num_samples(), 1);
  ASSERT_TRUE(std::filesystem::exists(folder_ / "train.tar.index"));
  EXPECT_EQ(ReadText(*Open(), 0), "one");
  folder_.Write("train.tar",
                TarMemberBytes("a/1.jpg", "other") + TarMemberBytes("b/2.jpg", "two") + TarEnd());
  const auto source = Open();
  EXPECT_THAT(Labels(*source), ElementsAre(0, 1));
  EXPECT_EQ(ReadText(*source, 0), "other");
}

TEST_F(SourcesTest, ADamagedIndexIsMadeAgain) {
  folder_.Write("train.tar", TarMemberBytes("a/1.jpg", "one") + TarEnd());
  Open();
  const std::string good = Unwrap(PosixFileSystem().ReadFile(folder_ / "train.tar.index"));
  for (size_t at = 0; at < good.size(); at += 3) {
    std::string bad = good;
    bad[at] ^= 0x41;
    folder_.Write("train.tar.index", bad);
    EXPECT_EQ(ReadText(*Open(), 0), "one");
  }
  for (const size_t length : {size_t{0}, size_t{10}, good.size() - 1}) {
    folder_.Write("train.tar.index", good.substr(0, length));
    EXPECT_EQ(ReadText(*Open(), 0), "one");
  }
}

TEST_F(SourcesTest, ACutShardIsAnErrorWithItsPlace) {
  const std::string whole = TarMemberBytes("a/1.jpg", std::string(600, '1')) +
                            TarMemberBytes("b/2.jpg", std::string(600, '2'));
  folder_.Write("train.tar", whole.substr(0, whole.size() - 700));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("train.tar: at byte 1536"), HasSubstr("b/2.jpg")));
  folder_.Write("train.tar", whole.substr(0, 1536 + 100));
  EXPECT_THAT(OpenError(), HasSubstr("cut inside a header"));
}

TEST_F(SourcesTest, HostileShardsAreErrors) {
  const std::string good = TarMemberBytes("a/1.jpg", "1") + TarEnd();
  std::string checksum = good;
  checksum[0] = 'z';
  const std::pair<std::string, const char*> cases[] = {
      {std::string(5000, 'x'), "no tar header"},
      {checksum, "no tar header"},
      {TarEnd(), "no picture"},
      {TarMemberBytes("1.jpg", "1") + TarEnd(), "has no label"},
      {TarMemberBytes("1.jpg", "1") + TarMemberBytes("1.cls", "no number") + TarEnd(),
       "found 'no number'"},
      {TarMemberBytes("1.jpg", "1") + TarMemberBytes("1.cls", std::string(100, '1')) + TarEnd(),
       "1.cls"},
      {TarMemberBytes("1.jpg", "1") + TarMemberBytes("1.cls", "-2") + TarEnd(), "found '-2'"},
      {TarMemberBytes("a/1.jpg", "1") + TarMemberBytes("b/2.jpg", "1") +
           TarMemberBytes("b/2.cls", "1") + TarEnd(),
       "one way for all"},
      {TarMemberBytes("x", "99 path=a", 'x') + TarMemberBytes("a/1.jpg", "1") + TarEnd(), "PAX"},
      {TarMemberBytes("x", "20 size=-5\n", 'x') + TarMemberBytes("a/1.jpg", "1") + TarEnd(), "PAX"},
      {TarMemberBytes("x", "28 size=999999999999999999\n", 'x') + TarMemberBytes("a/1.jpg", "1"),
       "train.tar"},
  };
  for (const auto& [bytes, expected] : cases) {
    folder_.Write("train.tar", bytes);
    EXPECT_THAT(OpenError(), AllOf(HasSubstr(expected), HasSubstr("train.tar")));
  }
}

std::string BigEndian(std::initializer_list<uint32_t> values) {
  std::string bytes;
  for (const uint32_t v : values) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(v >> shift));
  }
  return bytes;
}

void WriteGzip(const std::string& path, const std::string& contents) {
  archive* a = archive_write_new();
  archive_entry* entry = archive_entry_new();
  archive_entry_set_filetype(entry, AE_IFREG);
  archive_entry_set_pathname(entry, "data");
  CHECK(archive_write_add_filter_gzip(a) == ARCHIVE_OK &&
        archive_write_set_format_raw(a) == ARCHIVE_OK &&
        archive_write_open_filename(a, path.c_str()) == ARCHIVE_OK &&
        archive_write_header(a, entry) == ARCHIVE_OK);
  archive_write_data(a, contents.data(), contents.size());
  archive_entry_free(entry);
  archive_write_free(a);
}

TEST_F(SourcesTest, IdxFilesArePlainOrGzipped) {
  const std::string images = BigEndian({0x803, 3, 2, 2}) + "abcdefghijkl";
  const std::string labels = BigEndian({0x801, 3}) + std::string("\1\0\4", 3);
  folder_.Write("train-images-idx3-ubyte", images);
  EXPECT_THAT(OpenError(), HasSubstr("no labels"));
  WriteGzip(folder_ / "train-labels-idx1-ubyte.gz", labels);
  const auto source = Open();
  EXPECT_THAT(Labels(*source), ElementsAre(1, 0, 4));
  EXPECT_EQ(source->num_classes(), 5);
  EXPECT_EQ(ReadText(*source, 1), "efgh");
  const DecodedImage image = Unwrap(source->Decode(AsBytes("efgh"), {}));
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(std::string(image.pixels.data(), image.pixels.data() + 12), "eeefffggghhh");
}

TEST_F(SourcesTest, HostileIdxFilesAreErrors) {
  const std::string good = BigEndian({0x803, 3, 2, 2}) + "abcdefghijkl";
  const std::string labels = BigEndian({0x801, 3}) + std::string("\1\0\4", 3);
  folder_.Write("train-labels-idx1-ubyte", labels);
  const std::string cases[] = {"",
                               "abc",
                               good.substr(0, good.size() - 1),
                               BigEndian({0x801, 3, 2, 2}) + "abcdefghijkl",
                               BigEndian({0x803, 2, 2, 2}) + "abcdefgh",
                               BigEndian({0x803, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}),
                               BigEndian({0x803, 0x7FFFFFFF, 2, 2}) + "abcd",
                               BigEndian({0x803, 0, 2, 2}),
                               "\x1F\x8B\x08 no gzip"};
  for (const std::string& bytes : cases) {
    folder_.Write("train-images-idx3-ubyte", bytes);
    EXPECT_THAT(OpenError(), HasSubstr("train-images-idx3-ubyte"));
  }
}

TEST_F(SourcesTest, TheEvaluationSplitHasSeveralCustomaryNames) {
  folder_.Write("train/a/1.jpg", "t");
  folder_.Write("test/a/1.jpg", "e");
  EXPECT_EQ(ReadText(*Open(Split::kVal), 0), "e");
  config_.val_split = "holdout";
  EXPECT_THAT(OpenError(Split::kVal), AllOf(HasSubstr("'holdout'"), HasSubstr("'test'")));
}

TEST_F(SourcesTest, AMissingRootNamesTheNearestFolder) {
  folder_.Write("imagenet/x", "");
  config_.root = folder_ / "imagnet/full";
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("'" + folder_.path() + "'"), HasSubstr("'imagenet'"),
                                 HasSubstr("SPLIT/CLASS")));
  config_.root = "";
  EXPECT_THAT(OpenError(), HasSubstr("data.root is not set"));
}

TEST_F(SourcesTest, AFolderWithoutPicturesIsAnError) {
  folder_.Write("train/a/readme.txt", "");
  EXPECT_THAT(OpenError(), HasSubstr("no picture"));
}

TEST_F(SourcesTest, AFileThatDisappearsIsABadFile) {
  folder_.Write("train/a/1.jpg", "x");
  const auto source = Open();
  std::filesystem::remove(folder_ / "train/a/1.jpg");
  std::vector<uint8_t> bytes;
  const absl::Status status = source->ReadBytes(0, &bytes);
  EXPECT_EQ(BadFileKind(status), BadFile::kUnreadable);
}

TEST_F(SourcesTest, ClassesOfTheSplitsAreCompared) {
  folder_.Write("train/a/1.jpg", "");
  folder_.Write("train/b/1.jpg", "");
  folder_.Write("val/b/1.jpg", "");
  EXPECT_THAT(Message(CheckSameClasses(*Open(), *Open(Split::kVal))), HasSubstr("class 0 is 'a'"));
  folder_.Write("val/a/1.jpg", "");
  EXPECT_TRUE(CheckSameClasses(*Open(), *Open(Split::kVal)).ok());
}

TEST(RealSources, TheKeptPartOfCifarIsRead) {
  DataConfig config;
  config.root = std::string(TESSERA_SOURCE_DIR) + "/tests/data/cifar_smoke";
  const auto train = Unwrap(OpenSource(config, Split::kTrain));
  const auto val = Unwrap(OpenSource(config, Split::kVal));
  EXPECT_EQ(train->num_samples(), 300);
  EXPECT_EQ(val->num_samples(), 100);
  EXPECT_EQ(train->class_names()[9], "truck");
  EXPECT_TRUE(CheckSameClasses(*train, *val).ok());
  std::vector<int> counts(10);
  for (int64_t i = 0; i < 300; ++i) ++counts[train->label(i)];
  EXPECT_THAT(counts, testing::Each(30));
}

TEST(RealSources, FashionMnistOfDebianIsRead) {
  DataConfig config;
  config.root = "/usr/share/datasets/fashion-mnist";
  if (!PosixFileSystem().Exists(config.root)) {
    GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  }
  const auto train = Unwrap(OpenSource(config, Split::kTrain));
  EXPECT_EQ(train->num_samples(), 60000);
  EXPECT_EQ(train->num_classes(), 10);
  EXPECT_EQ(train->label(0), 9);
  EXPECT_EQ(Unwrap(OpenSource(config, Split::kVal))->num_samples(), 10000);
}

}  // namespace
}  // namespace tessera
