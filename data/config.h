// Configuration of the data pipeline: where the pictures are and what happens to them. Names are
// timm's where timm has the setting.
#ifndef TESSERA_DATA_CONFIG_H_
#define TESSERA_DATA_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"

namespace tessera {

struct DataConfig {
  // Source.
  std::string root;
  std::string format = "auto";
  std::string train_split = "train";
  std::string val_split = "val";
  std::string labels;
  std::string class_index;
  bool skip_bad = false;
  // Both transforms.
  int64_t image_size = 224;
  std::string normalization = "imagenet";
  std::vector<double> mean;
  std::vector<double> std;
  std::string resampler = "pillow";
  bool exif_rotate = false;
  int64_t max_pixels = 178'956'970;
  // Evaluation.
  double crop_pct = 0.875;
  std::string crop_mode = "center";
  std::string interpolation = "bicubic";
  // Training: one picture.
  std::vector<double> scale = {0.08, 1.0};
  std::vector<double> ratio = {3.0 / 4.0, 4.0 / 3.0};
  std::string train_interpolation = "random";
  int64_t pad_crop = 0;
  double hflip = 0.5;
  double vflip = 0.0;
  std::vector<double> color_jitter = {0.4};
  std::string auto_augment;
  double reprob = 0.0;
  std::string remode = "pixel";
  int64_t recount = 1;
  // Training: the batch.
  double mixup = 0.0;
  double cutmix = 0.0;
  double mixup_prob = 1.0;
  double mixup_switch_prob = 0.5;
  std::string mixup_mode = "batch";
  int64_t mixup_off_epoch = 0;
  double label_smoothing = 0.1;
  int64_t repeated_aug = 1;
  // Loading.
  int64_t workers = -1;
  int64_t prefetch = 3;
  int64_t cache_mb = 1024;

  template <class V>
  void VisitFields(V& v) {
    v("root", root,
      "folder of the data set; a prefix names the layout, as in shards:/data/cifar10");
    v("format", format, "layout; auto looks at what is in root",
      OneOf({"auto", "folder", "shards", "idx"}));
    v("train_split", train_split,
      "training pictures: a folder, IDX prefix, or shards (train, or in-{000..127}.tar)");
    v("val_split", val_split, "the same for evaluation; val also finds validation, test and t10k");
    v("labels", labels,
      "label file ('path<TAB>index' lines), relative to root; {split} is replaced; default "
      "{split}.txt where the folder of pictures is flat");
    v("class_index", class_index,
      "class file ('index<TAB>folder<TAB>name' lines, or one name a line), relative to root; "
      "default class_index.tsv or classes.txt where it exists");
    v("skip_bad", skip_bad, "leave out bad pictures in evaluation instead of stopping");
    v("image_size", image_size, "side of the square that the model sees", Between(1, 16384));
    v("normalization", normalization, "mean and std of the pixels, unless given by mean and std",
      OneOf({"imagenet", "inception", "cifar10"}));
    v("mean", mean, "mean of red, green, blue in 0..1", Between(0, 1));
    v("std", std, "standard deviation of red, green, blue in 0..1", MoreThan(0));
    v("resampler", resampler,
      "pillow is exact; the others are OpenCV's, faster and not antialiased alike",
      OneOf({"pillow", "cv-area", "cv-linear"}));
    v("exif_rotate", exif_rotate, "turn pictures upright as their EXIF tag says");
    v("max_pixels", max_pixels, "larger pictures count as bad", AtLeast(1));
    v("crop_pct", crop_pct, "evaluation: share of the shorter side that the crop keeps",
      MoreThan(0));
    v("crop_mode", crop_mode, "evaluation: center keeps the aspect ratio, squash does not",
      OneOf({"center", "squash"}));
    v("interpolation", interpolation, "evaluation filter",
      OneOf({"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}));
    v("scale", scale, "random resized crop: least and largest share of the area", Between(0, 1));
    v("ratio", ratio, "random resized crop: least and largest width over height", MoreThan(0));
    v("train_interpolation", train_interpolation, "training filter; random is bilinear or bicubic",
      OneOf({"random", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}));
    v("pad_crop", pad_crop,
      "instead of a random resized crop: pad by this many zeros and cut image_size",
      Between(0, 1024));
    v("hflip", hflip, "probability of a horizontal flip", Between(0, 1));
    v("vflip", vflip, "probability of a vertical flip", Between(0, 1));
    v("color_jitter", color_jitter,
      "[v] or [brightness, contrast, saturation] or with hue; unused with auto_augment",
      AtLeast(0));
    v("auto_augment", auto_augment, "'' or RandAugment as in rand-m9-mstd0.5-inc1");
    v("reprob", reprob, "random erasing: probability", Between(0, 1));
    v("remode", remode, "random erasing: fill with noise, zero, or one random colour",
      OneOf({"pixel", "const", "rand"}));
    v("recount", recount, "random erasing: largest number of boxes", Between(1, 100));
    v("mixup", mixup, "mixup alpha, 0 is off", AtLeast(0));
    v("cutmix", cutmix, "cutmix alpha, 0 is off", AtLeast(0));
    v("mixup_prob", mixup_prob, "probability of mixing a batch", Between(0, 1));
    v("mixup_switch_prob", mixup_switch_prob, "probability of cutmix where both are on",
      Between(0, 1));
    v("mixup_mode", mixup_mode, "one draw for the batch, for each pair, or for each picture",
      OneOf({"batch", "pair", "elem"}));
    v("mixup_off_epoch", mixup_off_epoch, "no mixing from this epoch on, 0 is never", AtLeast(0));
    v("label_smoothing", label_smoothing, "share of the target spread over all classes",
      HalfOpen(0, 1));
    v("repeated_aug", repeated_aug, "times that each picture of an epoch repeats", Between(1, 100));
    v("workers", workers,
      "loader threads; -1 leaves one core to the model, 0 loads in the calling thread",
      Between(-1, 1024));
    v("prefetch", prefetch, "batches loaded ahead", Between(1, 1024));
    v("cache_mb", cache_mb, "memory for decoded pictures; what fits is decoded once", AtLeast(0));
  }
};

}  // namespace tessera

#endif  // TESSERA_DATA_CONFIG_H_
