//! Detects paged listings that make no progress. Where the next page begins is the service's word, and
//! one that sends us in circles must not keep a run for ever.

use crate::store::s3::s3_error::S3Error;

/// Most pages of one listing: a thousand million objects.
const PAGES_MAX: u64 = 1_000_000;
/// Most pages in a row that may have nothing in them at all.
const EMPTY_MAX: u32 = 1000;

/// How far a listing has come.
#[derive(Debug, Clone, Default)]
pub(super) struct ListingProgress {
    pages: u64,
    empty: u32,
    /// A place where it went on, which no later one may be. It moves on after 1, 2, 4, 8, … pages: so a
    /// circle of any length is noticed, and nothing else has to be remembered.
    marker: Option<String>,
}

impl ListingProgress {
    /// Takes note of a page with so many names, after which the listing goes on at `next`.
    ///
    /// # Errors
    /// That it gets nowhere.
    pub(super) fn advance(&mut self, names: usize, next: &str) -> Result<(), S3Error> {
        self.pages += 1;
        self.empty = if names == 0 { self.empty + 1 } else { 0 };
        if next.is_empty() || self.marker.as_deref() == Some(next) {
            return Err(S3Error::broken("the service's listing loops"));
        }
        if self.empty > EMPTY_MAX || self.pages > PAGES_MAX {
            let said = format!("the service's listing does not end, after {} pages", self.pages);
            return Err(S3Error::broken(said));
        }
        if self.pages.is_power_of_two() {
            self.marker = Some(next.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_of_any_length_are_noticed_and_nothing_else() {
        for length in [1_u64, 2, 3, 7, 100] {
            let mut listing_progress = ListingProgress::default();
            let ended = (0..1000)
                .find(|page| listing_progress.advance(5, &(page % length).to_string()).is_err());
            assert!(ended.is_some_and(|page| page <= 4 * length), "{length}: {ended:?}");
        }
        let mut listing_progress = ListingProgress::default();
        assert!((0..5000).all(|page| listing_progress.advance(1, &page.to_string()).is_ok()));
    }

    #[test]
    fn pages_without_anything_end() {
        let mut listing_progress = ListingProgress::default();
        let ended =
            (0..5000).find(|page: &u32| listing_progress.advance(0, &page.to_string()).is_err());
        assert_eq!(ended, Some(EMPTY_MAX));
        assert!(ListingProgress::default().advance(1, "").is_err());
    }
}
