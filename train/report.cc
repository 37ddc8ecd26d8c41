#include "train/report.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "core/json.h"
#include "train/confusion_matrix.h"
#include "train/line_chart.h"

namespace tessera::train {
namespace {

constexpr size_t kMaxClassRows = 50;

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1440px;padding:0 1.5rem;color:#1f2937}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .8rem}
.tiles,.charts,.samples{display:flex;flex-wrap:wrap;gap:14px}
.tile{border:1px solid #e5e7eb;border-radius:8px;padding:.6rem 1rem;min-width:110px}
.tile b{display:block;font-size:1.35rem}.tile span,.muted{color:#6b7280;font-size:.85rem}
.chart{width:460px;max-width:100%;border:1px solid #e5e7eb;border-radius:8px;background:#fff}
.chart .grid{stroke:#e5e7eb}.chart .line{fill:none;stroke-width:1.6}
.chart .tick{font-size:11px;fill:#6b7280}.chart .title{font-size:13px;font-weight:600}
.chart .legend{font-size:12px}
.sample{width:170px;font-size:.85rem;border:1px solid #e5e7eb;border-radius:8px;overflow:hidden}
.sample img{width:170px;height:170px;display:block}.sample div{padding:.4rem .6rem;overflow-wrap:anywhere}
.right{color:#047857}.wrong{color:#b91c1c}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem .8rem;text-align:right}
th:first-child,td:first-child{text-align:left}tr:nth-child(even){background:#f9fafb}
img.wide{max-width:100%}pre{background:#f9fafb;border:1px solid #e5e7eb;border-radius:8px;padding:1rem;overflow:auto}
)";

// Every number of metrics.jsonl by its name, over the steps.
std::map<std::string, Series> ReadMetrics(const std::string& text) {
  std::map<std::string, Series> all;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const absl::StatusOr<Json> json = ParseJson(line, "metrics.jsonl");
    if (!json.ok() || !json->is_object() || !json->contains("step")) continue;
    const Json& step = (*json)["step"];
    if (!step.is_number()) continue;
    for (const auto& [name, value] : json->items()) {
      if (!value.is_number() || name == "step") continue;
      all[name].points.emplace_back(step.get<double>(), value.get<double>());
    }
  }
  return all;
}

std::string DataUrl(absl::string_view type, const std::string& bytes) {
  return absl::StrCat("data:image/", type, ";base64,", absl::Base64Escape(bytes));
}

std::string Tile(const std::string& value, absl::string_view what) {
  return absl::StrCat("<div class='tile'><b>", value, "</b><span>", what, "</span></div>");
}

std::string Tiles(const Evaluation& e) {
  return absl::StrCat("<div class='tiles'>", Tile(absl::StrFormat("%.2f %%", e.top1()), "top-1"),
                      Tile(absl::StrFormat("%.2f %%", e.top5()), "top-5"),
                      Tile(absl::StrFormat("%.4f", e.loss), "loss"),
                      Tile(absl::StrFormat("%.2f %%", e.calibration_error()), "calibration error"),
                      Tile(absl::StrCat(e.samples), "pictures evaluated"), "</div>\n");
}

std::string Charts(const std::string& metrics) {
  std::map<std::string, Series> all = ReadMetrics(metrics);
  const auto series = [&](const char* name, const char* legend) {
    return Series{legend, all[name].points};
  };
  return absl::StrCat(
      "<h2>Training</h2>\n<div class='charts'>\n",
      LineChart("Loss", {series("train/loss", "training"), series("val/loss", "evaluation")}),
      LineChart("Accuracy, %", {series("val/top1", "top-1"), series("val/top5", "top-5")}),
      LineChart("Learning rate", {series("train/lr", "")}),
      LineChart("Pictures per second", {series("train/images_per_second", "")}),
      LineChart("Norm of the gradient", {series("train/grad_norm", "")}), "</div>\n");
}

std::string Samples(const std::vector<ReportSample>& samples) {
  std::string html = "<h2>Predictions</h2>\n<div class='samples'>\n";
  for (const ReportSample& s : samples) {
    absl::StrAppend(&html, "<div class='sample'><img alt='' title='", HtmlEscape(s.name), "' src='",
                    DataUrl("jpeg", s.jpeg), "'><div><b>", HtmlEscape(s.label), "</b>");
    for (const ReportSample::Guess& guess : s.guesses) {
      absl::StrAppend(&html, "<br><span class='", guess.name == s.label ? "right" : "wrong", "'>",
                      absl::StrFormat("%.1f %% ", guess.percent), HtmlEscape(guess.name),
                      "</span>");
    }
    html += "</div></div>\n";
  }
  return html + "</div>\n";
}

std::string Attention(const std::vector<ReportSample>& samples) {
  std::string html;
  for (const ReportSample& s : samples) {
    if (s.attention_jpeg.empty()) continue;
    absl::StrAppend(&html, "<p class='muted'>", HtmlEscape(s.label), "</p><img class='wide' alt='",
                    "attention' src='", DataUrl("jpeg", s.attention_jpeg), "'>\n");
  }
  if (html.empty()) return "";
  return absl::StrCat("<h2>Where attention looks</h2>\n<p class='muted'>How much each position ",
                      "counts in an attention module: dark is unseen, yellow four times the mean.",
                      "</p>\n", html);
}

// The classes with the worst accuracy first.
std::string Classes(const Evaluation& e, const std::vector<std::string>& class_names) {
  std::vector<size_t> order(e.classes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto share = [&](int64_t part, int64_t whole) {
    return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  };
  const auto top1 = [&](size_t c) { return share(e.classes[c].top1, e.classes[c].samples); };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return top1(a) < top1(b); });
  std::string html =
      "<table><tr><th>class</th><th>pictures</th><th>top-1 %</th>"
      "<th>precision %</th></tr>\n";
  for (size_t i = 0; i < std::min(order.size(), kMaxClassRows); ++i) {
    const size_t c = order[i];
    const std::string name = c < class_names.size() ? class_names[c] : absl::StrCat(c);
    absl::StrAppendFormat(&html, "<tr><td>%s</td><td>%d</td><td>%.2f</td><td>%.2f</td></tr>\n",
                          HtmlEscape(name), e.classes[c].samples, top1(c),
                          share(e.classes[c].top1, e.classes[c].predicted));
  }
  html += "</table>\n";
  if (order.size() > kMaxClassRows) {
    absl::StrAppend(&html, "<p class='muted'>The ", kMaxClassRows, " worst of ", order.size(),
                    " classes.</p>\n");
  }
  return html;
}

}  // namespace

std::string ReportHtml(const ReportContents& contents) {
  std::string html =
      absl::StrCat("<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>",
                   HtmlEscape(contents.title), "</title><link rel='icon' href='data:,'><style>",
                   kStyle, "</style></head><body>\n<h1>", HtmlEscape(contents.title), "</h1>\n");
  const Evaluation* e = contents.evaluation;
  if (e != nullptr) absl::StrAppend(&html, "<h2>Accuracy</h2>\n", Tiles(*e));
  html += Charts(contents.metrics);
  if (!contents.samples.empty()) html += Samples(contents.samples);
  html += Attention(contents.samples);
  if (e != nullptr && !e->classes.empty()) {
    absl::StrAppend(&html, "<h2>Confusion matrix</h2>\n<p class='muted'>Rows are classes, columns ",
                    "what their pictures were taken for, in percent.</p>\n",
                    "<img class='wide' alt='confusion matrix' src='",
                    DataUrl("png", ConfusionMatrixPng(*e, contents.class_names)),
                    "'>\n<h2>Classes</h2>\n", Classes(*e, contents.class_names));
  }
  absl::StrAppend(&html, "<h2>Configuration</h2>\n<pre>", HtmlEscape(contents.config),
                  "</pre>\n</body></html>\n");
  return html;
}

}  // namespace tessera::train
