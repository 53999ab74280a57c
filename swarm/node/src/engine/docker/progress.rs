//! How far the fetching of an image is, in few words and not often: what is told here ends in the
//! cluster's store. Fetches nothing itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;

/// An image that is there sooner is not spoken of, and a slow one not more often.
const EVERY: Duration = Duration::from_secs(5);
/// Layers that are counted; images have 127 at most.
const MAX_LAYERS: usize = 256;
const MEGABYTE: i64 = 1_000_000;

/// Layers of an image on their way, by their short digests.
pub(super) struct Progress {
    /// Bytes that are here, and of how many.
    layers: BTreeMap<String, (i64, i64)>,
    next: Instant,
    told: String,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            layers: BTreeMap::new(),
            next: now + EVERY,
            told: String::new(),
        }
    }

    /// Takes in a line of the engine's; what to say now, if anything.
    pub(super) fn line(&mut self, line: CreateImageInfo, now: Instant) -> Option<String> {
        let detail = line.progress_detail.unwrap_or_default();
        let layer = line.id.unwrap_or_default();
        let known = self.layers.len() < MAX_LAYERS || self.layers.contains_key(&layer);
        match (line.status.as_deref(), detail.current, detail.total) {
            (Some("Downloading"), Some(current), Some(total)) if total > 0 && known => {
                self.layers.insert(layer, (current.clamp(0, total), total));
            }
            (Some("Download complete" | "Pull complete"), ..) => {
                if let Some((current, total)) = self.layers.get_mut(&layer) {
                    *current = *total;
                }
            }
            _ => {}
        }
        if now < self.next {
            return None;
        }
        self.next = now + EVERY;
        let text = self.text();
        let news = text != self.told;
        self.told.clone_from(&text);
        news.then_some(text)
    }

    fn text(&self) -> String {
        let sum =
            |of: fn(&(i64, i64)) -> i64| self.layers.values().map(of).fold(0, i64::saturating_add);
        let (current, total) = (sum(|layer| layer.0), sum(|layer| layer.1));
        if total == 0 {
            return "pulling the image".to_owned();
        }
        let megabytes = |bytes: i64| bytes / MEGABYTE;
        format!(
            "pulling the image: {} of {} MB",
            megabytes(current),
            megabytes(total).max(1)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn slow_pulls_are_told_and_not_often() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let mut line = |seconds: u64, line: Value| {
            let now = start + Duration::from_secs(seconds);
            progress.line(serde_json::from_value(line).unwrap(), now)
        };
        let part = |layer: &str, current: i64| {
            json!({"id": layer, "status": "Downloading",
                   "progressDetail": {"current": current, "total": 20_000_000}})
        };
        assert_eq!(
            line(0, json!({"status": "Pulling from web", "id": "v1"})),
            None
        );
        assert_eq!(line(1, part("a", 1)), None, "too soon");
        let said = line(5, part("b", 5_000_000));
        assert_eq!(said.as_deref(), Some("pulling the image: 5 of 40 MB"));
        assert_eq!(line(9, part("b", 6_000_000)), None, "too often");
        assert_eq!(line(10, part("b", 5_500_000)), None, "no news");
        let said = line(15, json!({"id": "a", "status": "Download complete"}));
        assert_eq!(said.as_deref(), Some("pulling the image: 25 of 40 MB"));
    }
}
