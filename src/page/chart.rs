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

/// One line of a chart.
#[derive(Debug)]
pub struct Line {
    /// Label.
    pub name: &'static str,
    /// CSS class; also distinguished by its dashes.
    pub tone: &'static str,
    /// Segments, split where there is no value.
    pub pieces: Vec<String>,
    /// The last value, with its unit.
    pub last: String,
}

/// A chart over time.
#[derive(Debug)]
pub struct Chart {
    /// Element ID, unique on the page.
    pub id: &'static str,
    /// Title.
    pub title: &'static str,
    /// The value at the upper edge, with its unit.
    pub top: String,
    /// Lines.
    pub lines: Vec<Line>,
    /// Text alternative.
    pub sentence: String,
}

/// Width of a chart's view box.
const WIDTH: f64 = 600.0;
/// Height of a chart's view box.
const HEIGHT: f64 = 140.0;

/// A series: label, CSS class, and its value in a bucket.
pub type Series = (&'static str, &'static str, fn(&Slot, f64) -> Option<f64>);

impl Chart {
    /// A chart of some series over buckets of `seconds` each; `words` formats a value.
    #[must_use]
    pub fn new(
        (id, title): (&'static str, &'static str),
        (slots, seconds): (&[Slot], f64),
        series: &[Series],
        words: fn(f64) -> String,
    ) -> Self {
        let values: Vec<Vec<_>> =
            series.iter().map(|(_, _, value)| slots.iter().map(|slot| value(slot, seconds)).collect()).collect();
        let top = values.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let scale = if top > 0.0 { top } else { 1.0 };
        let last = |values: &[Option<f64>]| values.iter().rev().flatten().next().copied();
        let lines: Vec<_> = series
            .iter()
            .zip(&values)
            .map(|((name, tone, _), values)| Line {
                name,
                tone,
                pieces: lines(values, scale, WIDTH, HEIGHT - 1.0),
                last: last(values).map_or_else(|| "–".to_owned(), words),
            })
            .collect();
        let told: Vec<_> = lines.iter().map(|line| format!("{} {} at the end", line.name, line.last)).collect();
        let sentence = format!("{title}: at most {}; {}", words(top), told.join(", "));
        Self { id, title, top: words(top), lines, sentence }
    }
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
    // A segment of one point is drawn as a dot: a line from the point to itself with round caps.
    let whole =
        |piece: Vec<String>| if piece.len() == 1 { [&piece[0][..], &piece[0]].join(" ") } else { piece.join(" ") };
    pieces.into_iter().map(whole).collect()
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

    fn slots(waiting: &[u64]) -> Vec<Slot> {
        waiting.iter().map(|waiting| Slot { max_pending: *waiting, ..Slot::default() }).collect()
    }

    const DEPTH: Series = ("depth", "busy", |slot, _| Some(slot.max_pending as f64));
    const RARE: Series = ("rare", "bad", |slot, _| (slot.max_pending > 5).then_some(1.0));

    fn chart(waiting: &[u64], series: &[Series]) -> Chart {
        Chart::new(("id", "Waiting"), (&slots(waiting), 60.0), series, |value| format!("{value:.0} tasks"))
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

    #[test]
    fn a_chart_says_in_words_what_it_draws() {
        let chart = chart(&[3, 9, 4], &[DEPTH, RARE]);
        assert_eq!(chart.sentence, "Waiting: at most 9 tasks; depth 4 tasks at the end, rare 1 tasks at the end");
        assert_eq!((chart.top.as_str(), chart.lines[0].last.as_str()), ("9 tasks", "4 tasks"));
        assert_eq!(chart.lines[1].pieces.len(), 1, "measured once");
    }

    #[test]
    fn a_chart_without_values_shows_a_dash() {
        let chart = chart(&[1, 2], &[RARE]);
        assert_eq!(
            (chart.lines[0].last.as_str(), chart.lines[0].pieces.len(), chart.top.as_str()),
            ("–", 0, "0 tasks")
        );
        assert!(chart.sentence.ends_with("rare – at the end"));
    }

    #[test]
    fn all_lines_of_a_chart_have_one_scale() {
        const HALF: Series = ("half", "good", |slot, _| Some(slot.max_pending as f64 / 2.0));
        let chart = chart(&[0, 10], &[DEPTH, HALF]);
        assert_eq!(chart.lines[0].pieces, ["0,139.0 600,1.0"]);
        assert_eq!(chart.lines[1].pieces, ["0,139.0 600,70.0"]);
    }
}
