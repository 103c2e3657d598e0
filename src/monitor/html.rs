//! Builds pages: escapes text, and writes the frame of every page.
//!
//! Markup is part of the program (`&'static str`); all other text goes through [`Html::text`], the only
//! function that escapes.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::mail::Timestamp;

/// A page that is being written.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup of the program.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds other text, escaped: for text and for attributes in double quotes.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        // Writing into a String does not fail.
        let _ = write!(Escape(&mut self.0), "{text}");
        self
    }

    /// The page in its frame. `here` is the path of the page, `title` its headline.
    pub(super) fn into_page(self, here: &str, title: &'static str, host: &str) -> String {
        let mut page = Self::default();
        page.markup("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")
            .markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
            .markup("<meta name=\"color-scheme\" content=\"light dark\"><title>")
            .text(title)
            .markup(" · ")
            .text(host)
            .markup("</title><style>")
            .markup(STYLE)
            .markup(
                "</style></head><body><header><div class=\"bar\"><a class=\"name\" href=\"/\">postrider</a>",
            )
            .markup("<span class=\"host\">")
            .text(host)
            .markup("</span><nav>");
        for (path, name) in
            [("/", "Overview"), ("/queue", "Queue"), ("/traces", "Traces"), ("/metrics", "Metrics")]
        {
            page.markup("<a href=\"").text(path).markup(if path == here {
                "\" class=\"here\">"
            } else {
                "\">"
            });
            page.text(name).markup("</a>");
        }
        page.markup("</nav></div></header><main>");
        page.0.push_str(&self.0);
        page.markup("</main></body></html>\n");
        page.0
    }
}

struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// A duration in at most two units.
pub(super) struct HumanDuration(pub(super) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match (days, hours, minutes, seconds) {
            (0, 0, 0, 0) => write!(f, "{millis} ms"),
            (0, 0, 0, 1..10) => write!(f, "{seconds}.{} s", millis / 100),
            (0, 0, 0, _) => write!(f, "{seconds} s"),
            (0, 0, 1..10, _) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, 0, _, _) => write!(f, "{minutes} min"),
            (0, _, _, _) => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

/// A time to the second, in UTC.
pub(super) struct HumanTime(pub(super) Timestamp);

impl fmt::Display for HumanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rfc3339 = self.0.to_string();
        let (date, time) = rfc3339.split_once('T').unwrap_or_default();
        let (time, _) = time.split_once('.').unwrap_or((time, ""));
        write!(f, "{date} {time} UTC")
    }
}

/// A size in decimal units.
pub(super) struct HumanSize(pub(super) u64);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(octets) = *self;
        match octets {
            0..1000 => write!(f, "{octets} B"),
            1000..1_000_000 => write!(f, "{}.{} kB", octets / 1000, octets % 1000 / 100),
            _ => write!(f, "{}.{} MB", octets / 1_000_000, octets % 1_000_000 / 100_000),
        }
    }
}

const STYLE: &str = "\
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--dim:#667284;--line:#dfe3e9;--link:#1659c7;\
--good:#1d7a3e;--goodbg:#e3f4e8;--wait:#8a5a00;--waitbg:#fdf0d3;--bad:#b3261e;--badbg:#fce6e4}\
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1b212a;--ink:#e3e8ef;--dim:#93a0b2;\
--line:#2e3743;--link:#82b1ff;--good:#7fd69b;--goodbg:#173323;--wait:#f0c36a;--waitbg:#3a2d10;\
--bad:#ff9a92;--badbg:#431d1b}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--bg);color:var(--ink);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}\
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}\
code,.mono{font-kind:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.92em}\
header{background:var(--card);border-bottom:1px solid var(--line)}\
.bar,main{max-width:68rem;margin:0 auto;padding:0 1rem}\
.bar{display:flex;flex-wrap:wrap;align-items:baseline;gap:.2rem 1rem;padding-top:.7rem}\
.name{font-weight:700;font-size:1.15rem;color:var(--ink)}.host{color:var(--dim);overflow-wrap:anywhere}\
nav{display:flex;gap:.2rem;margin-left:auto;overflow-x:auto}\
nav a{padding:.45rem .7rem;color:var(--dim);border-bottom:2px solid transparent}\
nav a.here{color:var(--ink);border-color:var(--link)}nav a:hover{text-decoration:none;color:var(--ink)}\
main{padding-top:1.2rem;padding-bottom:3rem}\
h1{font-size:1.25rem;margin:.2rem 0 .8rem}h2{font-size:1rem;margin:1.8rem 0 .6rem}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem}\
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem}\
.tile{padding:.8rem 1rem;color:inherit;display:block}.tile b{display:block;font-size:1.5rem;line-height:1.25;\
font-weight:650;font-variant-numeric:tabular-nums}.tile span{color:var(--dim);font-size:.87rem}\
.tile.bad b{color:var(--bad)}\
.card{padding:.75rem 1rem;margin:.6rem 0;overflow-wrap:anywhere}\
.columns{columns:20rem 3;column-gap:.8rem}.columns .card{break-inside:avoid;margin:0 0 .8rem}\
.columns h3{font-size:.8rem;letter-spacing:.05em;text-transform:uppercase;color:var(--dim);margin:0 0 .3rem}\
table{width:100%;border-collapse:collapse}td{padding:.16rem 0;vertical-align:top}\
td.n{text-align:right;padding-left:1rem;font-variant-numeric:tabular-nums;white-space:nowrap}\
td.label{padding-left:1rem}.zero{color:var(--dim)}.dim{color:var(--dim)}\
.line{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline}.push{margin-left:auto}\
.badge{display:inline-block;border-radius:1rem;padding:0 .55rem;font-size:.8rem;line-height:1.5;\
background:var(--line);color:var(--ink);white-space:nowrap}\
.badge.good{background:var(--goodbg);color:var(--good)}.badge.wait{background:var(--waitbg);color:var(--wait)}\
.badge.bad{background:var(--badbg);color:var(--bad)}\
ul.plain{list-style:none;margin:.5rem 0 0;padding:0}ul.plain li{padding:.35rem 0;border-top:1px solid var(--line)}\
.why{color:var(--dim);font-size:.9rem}.why.bad{color:var(--bad)}\
.filter{display:flex;flex-wrap:wrap;gap:.4rem;margin:0 0 .8rem}.filter a{border:1px solid var(--line);\
border-radius:1rem;padding:.1rem .7rem;background:var(--card);font-size:.9rem}\
.filter a.here{background:var(--link);border-color:var(--link);color:var(--bg)}\
details.card{padding:0}summary{cursor:pointer;padding:.5rem 1rem;list-style:none}\
summary::-webkit-details-marker{display:none}details.bad{border-left:4px solid var(--bad)}\
details table{margin:0 1rem .6rem;width:calc(100% - 2rem);font-size:.9rem}\
details td{border-top:1px solid var(--line);padding:.2rem 0}details td.n{padding:.2rem 1rem .2rem 0;width:6rem}\
tr.bad td{color:var(--bad);font-weight:600}\
.empty{text-align:center;color:var(--dim);padding:2.5rem 1rem}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_never_markup() {
        let mut html = Html::default();
        html.markup("<p title=\"").text("\"><script>alert('&')</script>").markup("\">");
        assert_eq!(html.0, "<p title=\"&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;\">");
    }

    #[test]
    fn durations_times_and_sizes_are_short_and_readable() {
        for (millis, said) in [
            (12, "12 ms"),
            (1_234, "1.2 s"),
            (42_000, "42 s"),
            (61_000, "1 min 1 s"),
            (1_800_000, "30 min"),
            (5_400_000, "1 h 30 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(HumanDuration(Duration::from_millis(millis)).to_string(), said);
        }
        let moment = Timestamp::from_millis(1_795_408_663_042);
        assert_eq!(HumanTime(moment).to_string(), "2026-11-23 04:37:43 UTC");
        for (octets, said) in [(999, "999 B"), (1_420, "1.4 kB"), (52_428_800, "52.4 MB")] {
            assert_eq!(HumanSize(octets).to_string(), said);
        }
    }
}
