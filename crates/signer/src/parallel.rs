//! Work for each HTLC of a commitment, the longest computation of a payment on a phone: on all cores with the feature `parallel`, in
//! turn without it, as on systems without threads.

/// The results of `each`, in the order of `items`, or one of its errors.
#[cfg(feature = "parallel")]
pub(crate) fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    each: impl Fn(&T) -> Result<R, E> + Send + Sync,
) -> Result<Vec<R>, E> {
    use rayon::prelude::*;
    items.par_iter().map(each).collect()
}

/// The results of `each`, in the order of `items`, or its first error.
#[cfg(not(feature = "parallel"))]
pub(crate) fn try_map<T, R, E>(
    items: &[T],
    each: impl Fn(&T) -> Result<R, E>,
) -> Result<Vec<R>, E> {
    items.iter().map(each).collect()
}
