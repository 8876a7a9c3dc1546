//! Server-rendered charts: SVG lines without scripts. Each has a table of its numbers beside it.

use crate::{
    board::{
        Board,
        history::{Range, Slot},
        rates::Tally,
    },
    clock::Time,
};

/// A small line chart without axes.
#[derive(Debug)]
pub struct Sparkline {
    /// Points in a box of 120 × 32.
    pub points: String,
    /// Text alternative.
    pub sentence: String,
}

impl Sparkline {
    /// A line through values, oldest first.
    #[must_use]
    pub fn new(values: &[u64], sentence: String) -> Self {
        let values: Vec<_> = values.iter().map(|value| Some(*value as f64)).collect();
        let top = values.iter().flatten().copied().fold(1.0, f64::max);
        Self { points: lines(&values, top, 120.0, 31.0).join(" "), sentence }
    }

    /// A value of each minute of an hour, without the incomplete last one.
    #[must_use]
    pub fn of_minutes(hour: &[Slot], value: impl Fn(&Slot) -> u64, what: &str, words: fn(&u64) -> String) -> Self {
        let values: Vec<_> = hour[..hour.len().saturating_sub(1)].iter().map(value).collect();
        let top = values.iter().max().copied().unwrap_or_default();
        Self::new(&values, format!("{what} in the last hour, peak {}", words(&top)))
    }

    /// The last hour by minute, without the incomplete last one.
    #[must_use]
    pub fn of_hour(board: &Board, now: Time, what: &str, count: fn(&Tally) -> u64) -> Self {
        let slots = board.history.over(Range::Hour, now);
        let values: Vec<_> = slots[..slots.len() - 1].iter().map(|slot| count(&slot.tally)).collect();
        let (sum, top) = (values.iter().sum::<u64>(), values.iter().max().copied().unwrap_or_default());
        Self::new(&values, format!("{sum} {what} in the last hour, peak {top}/min"))
    }
}

/// One line, or one part of the bars, of a chart.
#[derive(Debug)]
pub struct Line {
    /// Label.
    pub name: &'static str,
    /// CSS class; also distinguished by its dashes.
    pub tone: &'static str,
    /// Segments, split where there is no value; none for bars.
    pub pieces: Vec<String>,
    /// The last value, with its unit.
    pub last: String,
}

/// One bucket of a chart: a link to what happened in it.
#[derive(Debug)]
pub struct Bucket {
    /// Position of its left edge.
    pub left: f64,
    /// Where it leads.
    pub url: String,
    /// What it tells, in words.
    pub sentence: String,
    /// Bars from the bottom up: CSS class, upper edge, height.
    pub bars: Vec<(&'static str, f64, f64)>,
}

/// A chart over time.
#[derive(Debug)]
pub struct Chart {
    /// Element ID, unique on the page.
    pub id: &'static str,
    /// Title.
    pub title: &'static str,
    /// Lines, or parts of the bars.
    pub lines: Vec<Line>,
    /// Marks of the vertical axis, from the top: height in the box, and the value.
    pub heights: Vec<(f64, String)>,
    /// Marks of the horizontal axis: position in percent, and the time.
    pub times: Vec<(f64, String)>,
    /// Buckets, oldest first.
    pub buckets: Vec<Bucket>,
    /// Width of a bucket.
    pub width: f64,
    /// Text alternative.
    pub sentence: String,
}

/// Width of a chart's view box.
const WIDTH: f64 = 600.0;
/// Height of a chart's view box.
const HEIGHT: f64 = 140.0;
/// Latencies whose largest is so many times the smallest are drawn on a logarithmic scale.
const WIDE: f64 = 30.0;

/// A series: label, CSS class, and its value in a bucket.
pub type Series = (&'static str, &'static str, fn(&Slot, f64) -> Option<f64>);

/// What is drawn, and how.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Element ID and title.
    pub name: (&'static str, &'static str),
    /// The series.
    pub series: &'static [Series],
    /// Stacked bars instead of lines.
    pub is_stacked: bool,
    /// Formats a value.
    pub words: fn(f64) -> String,
    /// Round values for the vertical axis: the smallest that is not less.
    pub round: fn(f64) -> f64,
    /// Values that span several orders of magnitude are drawn on a logarithmic scale.
    pub is_wide: bool,
}

/// From a value to a height in the box.
struct Scale {
    top: f64,
    is_log: bool,
}

impl Scale {
    fn of(values: &[Vec<Option<f64>>], form: &Form) -> Self {
        let all = || values.iter().flatten().flatten().copied();
        let stacked =
            || (0..values.first().map_or(0, Vec::len)).map(|at| values.iter().filter_map(|line| line[at]).sum());
        let top = if form.is_stacked { stacked().fold(0.0, f64::max) } else { all().fold(0.0, f64::max) };
        let least = all().filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
        let top = if top > 0.0 { (form.round)(top) } else { 1.0 };
        Self { top, is_log: form.is_wide && top > WIDE * least.max(1.0) }
    }

    /// The part of the height that a value has, 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let part = if self.is_log { value.max(0.0).ln_1p() / self.top.ln_1p() } else { value / self.top };
        part.clamp(0.0, 1.0)
    }

    /// The height of a value in the box, from the top.
    fn height(&self, value: f64) -> f64 {
        rounded(HEIGHT - self.part(value) * (HEIGHT - 1.0))
    }

    /// Values of the vertical axis, from the top.
    fn marks(&self, form: &Form) -> Vec<(f64, String)> {
        let values: Vec<f64> = if self.is_log {
            let decades = (0..12).map(|decade| 10_f64.powi(decade)).filter(|value| *value * 1.5 < self.top);
            let mut all: Vec<_> = decades.collect();
            all.push(self.top);
            let spare = all.len().saturating_sub(5);
            all.drain(..spare);
            all.into_iter().rev().collect()
        } else {
            // Halves of a round value are round enough to be read.
            [1.0, 0.5].map(|part| part * self.top).into()
        };
        let zero = (HEIGHT, "0".to_owned());
        values.into_iter().map(|value| (self.height(value), (form.words)(value))).chain([zero]).collect()
    }
}

/// A height in the box as a percentage of it, for marks beside it.
#[must_use]
pub fn percent_of_height(height: &f64) -> f64 {
    rounded(height * 100.0 / HEIGHT)
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl Chart {
    /// A chart over buckets of a range.
    #[must_use]
    pub fn new(form: &Form, (slots, range): (&[Slot], Range)) -> Self {
        let seconds = range.slot_seconds() as f64;
        let values: Vec<Vec<_>> =
            form.series.iter().map(|(_, _, value)| slots.iter().map(|slot| value(slot, seconds)).collect()).collect();
        let scale = Scale::of(&values, form);
        let last = |values: &[Option<f64>]| values.iter().rev().flatten().next().copied();
        let width = WIDTH / slots.len().max(1) as f64;
        let lines: Vec<_> = form
            .series
            .iter()
            .zip(&values)
            .map(|((name, tone, _), values)| {
                let parts: Vec<_> = values.iter().map(|value| value.map(|value| scale.part(value))).collect();
                // A point stands in the middle of its bucket.
                let pieces = if form.is_stacked { Vec::new() } else { segments(&parts, width) };
                Line { name, tone, pieces, last: last(values).map_or_else(|| "–".to_owned(), form.words) }
            })
            .collect();
        let buckets = slots.iter().enumerate().filter_map(|(at, slot)| {
            let begins = slot.begins(range)?;
            let said: Vec<_> = form
                .series
                .iter()
                .zip(&values)
                .filter_map(|((name, ..), values)| Some(format!("{name} {}", (form.words)(values[at]?))))
                .collect();
            let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
            let mut below = 0.0;
            let mut bars = Vec::new();
            for ((_, tone, _), values) in form.series.iter().zip(&values).filter(|_| form.is_stacked) {
                let value = values[at].unwrap_or_default();
                let (low, high) = (scale.height(below), scale.height(below + value));
                if value > 0.0 {
                    bars.push((*tone, high, rounded((low - high - 0.5).max(0.5))));
                }
                below += value;
            }
            let until = Time::from_timestamp((slot.number + 1) * range.slot_seconds(), 0)?;
            let span = format!("{}..{}", super::format::datetime(&begins), super::format::datetime(&until));
            Some(Bucket {
                left: rounded(at as f64 * width),
                url: super::format::address("/tasks", &[("finished".to_owned(), span)]),
                sentence: format!("{} UTC: {said}", super::format::minute(&begins)),
                bars,
            })
        });
        let told: Vec<_> = lines.iter().map(|line| format!("{} {} at the end", line.name, line.last)).collect();
        Self {
            id: form.name.0,
            title: form.name.1,
            sentence: format!("{}: at most {}; {}", form.name.1, (form.words)(scale.top), told.join(", ")),
            heights: scale.marks(form),
            times: times(slots, range),
            buckets: buckets.collect(),
            width: rounded(width),
            lines,
        }
    }
}

/// Round times: each tenth minute, fourth hour or day.
fn times(slots: &[Slot], range: Range) -> Vec<(f64, String)> {
    let step = match range {
        Range::Hour => 600,
        Range::Day => 4 * 3_600,
        Range::Week => 86_400,
    };
    let places =
        slots.iter().enumerate().filter(|(_, slot)| (slot.number * range.slot_seconds()).rem_euclid(step) == 0);
    let mark = |(at, slot): (usize, &Slot)| {
        let begins = slot.begins(range)?;
        let text = if range == Range::Week { begins.format("%m-%d") } else { begins.format("%H:%M") };
        Some((rounded(at as f64 * 100.0 / slots.len() as f64), text.to_string()))
    };
    places.filter_map(mark).filter(|(place, _)| *place < 95.0).collect()
}

/// The smallest round number that is not less: one, two or five times a power of ten.
#[must_use]
pub fn round_number(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|round| *round >= value).unwrap_or(value)
}

/// The smallest round count that is not less, and whose half is whole.
#[must_use]
pub fn round_count(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [2.0, 4.0, 10.0, 20.0].map(|step| step * power).into_iter().find(|round| *round >= value).unwrap_or(value)
}

/// The smallest round duration that is not less, milliseconds.
#[must_use]
pub fn round_duration(ms: f64) -> f64 {
    const MINUTES: [f64; 8] = [60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0];
    if ms <= 60_000.0 {
        return round_number(ms);
    }
    MINUTES
        .map(|seconds| seconds * 1_000.0)
        .into_iter()
        .find(|round| *round >= ms)
        .unwrap_or_else(|| (ms / 43_200_000.0).ceil() * 43_200_000.0)
}

/// Points of the segments of a line, each in the middle of its bucket; values are parts of the height.
fn segments(parts: &[Option<f64>], width: f64) -> Vec<String> {
    let mut pieces: Vec<Vec<String>> = Vec::new();
    let mut is_open = false;
    for (index, part) in parts.iter().enumerate() {
        let Some(part) = part else {
            is_open = false;
            continue;
        };
        if !is_open {
            pieces.push(Vec::new());
            is_open = true;
        }
        let point = format!("{:.0},{:.1}", (index as f64 + 0.5) * width, HEIGHT - part * (HEIGHT - 1.0));
        pieces.last_mut().into_iter().for_each(|piece| piece.push(point.clone()));
    }
    pieces.iter().map(|piece| joined(piece)).collect()
}

/// A segment of one point is drawn as a dot: a line from the point to itself with round caps.
fn joined(piece: &[String]) -> String {
    if piece.len() == 1 { [&piece[0][..], &piece[0]].join(" ") } else { piece.join(" ") }
}

/// Points of the segments of a line in a box, with a margin of one unit above and below.
fn lines(values: &[Option<f64>], top: f64, width: f64, height: f64) -> Vec<String> {
    let step = width / values.len().saturating_sub(1).max(1) as f64;
    let mut pieces: Vec<Vec<String>> = Vec::new();
    let mut is_open = false;
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        if !is_open {
            pieces.push(Vec::new());
            is_open = true;
        }
        let point = format!("{:.0},{:.1}", index as f64 * step, height - value * (height - 1.0) / top);
        pieces.last_mut().into_iter().for_each(|piece| piece.push(point.clone()));
    }
    pieces.iter().map(|piece| joined(piece)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let values = [Some(0.0), Some(10.0), None, Some(5.0)];
        assert_eq!(lines(&values, 10.0, 300.0, 31.0), ["0,31.0 100,1.0", "300,16.0 300,16.0"]);
    }

    #[test]
    fn a_line_stays_within_its_box() {
        for values in [vec![], vec![0], vec![7], vec![0, 0], vec![u64::MAX, 0, 1], (0..500).collect()] {
            let spark = Sparkline::new(&values, String::new());
            for point in spark.points.split_whitespace() {
                let (x, y) = point.split_once(',').map(|(x, y)| (x.parse::<f64>(), y.parse::<f64>())).unwrap();
                let (x, y) = (x.unwrap(), y.unwrap());
                assert!((0.0..=120.0).contains(&x) && (1.0..=31.0).contains(&y), "{values:?}: {point}");
            }
        }
    }

    #[test]
    fn no_value_is_no_line_and_one_is_a_dot() {
        assert_eq!(Sparkline::new(&[], String::new()).points, "");
        assert_eq!(Sparkline::new(&[0], String::new()).points, "0,31.0 0,31.0");
        assert_eq!(lines(&[None, None], 1.0, 10.0, 10.0), Vec::<String>::new());
    }

    #[test]
    fn a_quiet_hour_lies_at_the_bottom() {
        let spark = Sparkline::of_hour(&Board::default(), Time::UNIX_EPOCH, "tasks completed", |tally| tally.completed);
        assert_eq!(spark.points.split(' ').count(), 59, "the last minute is not over");
        assert!(spark.points.split(' ').all(|point| point.ends_with(",31.0")), "{}", spark.points);
        assert_eq!(spark.sentence, "0 tasks completed in the last hour, peak 0/min");
    }

    fn slots(waiting: &[u64]) -> Vec<Slot> {
        let slot = |(waiting, number): (&u64, i64)| Slot { number, max_pending: *waiting, ..Slot::default() };
        waiting.iter().zip(5..).map(slot).collect()
    }

    const DEPTH: Series = ("depth", "busy", |slot, _| Some(slot.max_pending as f64));
    const RARE: Series = ("rare", "bad", |slot, _| (slot.max_pending > 5).then_some(1.0));
    const HALF: Series = ("half", "good", |slot, _| Some(slot.max_pending as f64 / 2.0));

    const FORM: Form = Form {
        name: ("id", "Waiting"),
        series: &[DEPTH, RARE],
        is_stacked: false,
        words: |value| format!("{value:.0} tasks"),
        round: round_number,
        is_wide: false,
    };

    fn chart(waiting: &[u64], form: Form) -> Chart {
        Chart::new(&form, (&slots(waiting), Range::Hour))
    }

    #[test]
    fn a_chart_says_in_words_what_it_draws() {
        let chart = chart(&[3, 9, 4], FORM);
        assert_eq!(chart.sentence, "Waiting: at most 10 tasks; depth 4 tasks at the end, rare 1 tasks at the end");
        assert_eq!(chart.lines[1].pieces.len(), 1, "measured once");
        let buckets: Vec<_> = chart.buckets.iter().map(|bucket| bucket.sentence.as_str()).collect();
        assert_eq!(buckets[1], "01-01 00:06 UTC: depth 9 tasks, rare 1 tasks");
        assert_eq!(
            chart.buckets[0].url,
            "/tasks?finished=1970-01-01T00%3A05%3A00.000000Z..1970-01-01T00%3A06%3A00.000000Z"
        );
    }

    #[test]
    fn a_chart_without_values_shows_a_dash() {
        let chart = chart(&[1, 2], Form { series: &[RARE], ..FORM });
        assert_eq!((chart.lines[0].last.as_str(), chart.lines[0].pieces.len()), ("–", 0));
        assert!(chart.sentence.ends_with("rare – at the end"));
        assert!(chart.buckets[0].sentence.ends_with(": nothing"), "{}", chart.buckets[0].sentence);
    }

    #[test]
    fn all_lines_of_a_chart_have_one_scale_and_round_marks() {
        let chart = chart(&[0, 8], Form { series: &[DEPTH, HALF], ..FORM });
        assert_eq!(chart.lines[0].pieces, ["150,140.0 450,28.8"]);
        assert_eq!(chart.lines[1].pieces, ["150,140.0 450,84.4"]);
        let marks: Vec<_> = chart.heights.iter().map(|(height, text)| format!("{text} at {height}")).collect();
        assert_eq!(marks, ["10 tasks at 1", "5 tasks at 70.5", "0 at 140"]);
    }

    #[test]
    fn bars_stand_on_each_other() {
        let chart = chart(&[0, 8], Form { series: &[DEPTH, HALF], is_stacked: true, ..FORM });
        assert!(chart.buckets[0].bars.is_empty() && chart.lines[0].pieces.is_empty());
        assert_eq!(chart.buckets[1].bars, [("busy", 84.4, 55.1), ("good", 56.6, 27.3)], "of 20 in all");
    }

    #[test]
    fn latencies_of_all_sizes_are_drawn_on_one_scale() {
        let form = Form { series: &[DEPTH], is_wide: true, round: round_duration, ..FORM };
        let wide = chart(&[10, 60_000], form);
        let texts: Vec<_> = wide.heights.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["100000 tasks", "10000 tasks", "1000 tasks", "100 tasks", "10 tasks", "0"]);
        let narrow = chart(&[10, 20], form);
        assert_eq!(narrow.heights[0].1, "20 tasks");
    }

    #[test]
    fn round_values_are_not_less() {
        for (value, round) in [(0.3, 0.5), (1.0, 1.0), (2.1, 5.0), (7.0, 10.0), (1_234.0, 2_000.0)] {
            assert!((round_number(value) - round).abs() < 1e-9, "{value}: {}", round_number(value));
        }
        assert_eq!([0.0, 2.0, 3.0, 7.0, 11.0, 41.0].map(round_count), [2.0, 2.0, 4.0, 10.0, 20.0, 100.0]);
        let durations = [90_000.0, 4_000_000.0, 1e8].map(round_duration);
        assert_eq!(durations, [120_000.0, 7_200_000.0, 129_600_000.0]);
    }

    #[test]
    fn times_are_marked_where_they_are_round() {
        let slots: Vec<_> = (25..85).map(|number| Slot { number, ..Slot::default() }).collect();
        let marks = times(&slots, Range::Hour);
        assert_eq!(marks[0], (8.3, "00:30".to_owned()));
        assert_eq!(marks.len(), 6);
        let days: Vec<_> = (0..168).map(|number| Slot { number, ..Slot::default() }).collect();
        assert_eq!(times(&days, Range::Week)[1], (14.3, "01-02".to_owned()));
    }
}
