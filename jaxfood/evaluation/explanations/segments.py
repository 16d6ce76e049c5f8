"""Superpixels: a picture cut into segments of near pixels of like colour."""

import numpy as np

_ROUNDS = 10  # as in the paper; the centres have come to rest by then
_COMPACTNESS = 0.2  # of a distance of one segment's side, as a difference of colour in [0, 1]


def superpixels(image: np.ndarray, count: int = 49, *, compactness: float = _COMPACTNESS) -> np.ndarray:
    """The number of the segment that each pixel belongs to, int32 `[H, W]`, 0 to at most `count` - 1.

    SLIC (Achanta et al. 2012, https://doi.org/10.1109/TPAMI.2012.120): k-means of colour and place together, from
    centres on a grid. Here colour is RGB, not Lab; each pixel is compared with all centres, as small pictures have few;
    and a segment may have stray pixels apart from it, which explanations do not mind.

    Args:
        image: `[H, W, 3]` in [0, 1].
        count: how many segments at most: the largest grid of squares that has no more.
        compactness: how much place weighs against colour: large values give squares.
    """
    height, width = image.shape[:2]
    side = max(1, int(np.sqrt(count)))
    rows, columns = np.mgrid[:height, :width]
    near = compactness * side / max(height, width)
    points = np.concatenate((image, near * rows[..., None], near * columns[..., None]), -1).reshape(-1, 5)
    nearest = (rows * side // height * side + columns * side // width).ravel()
    for _ in range(_ROUNDS):
        _, nearest = np.unique(nearest, return_inverse=True)
        sizes = np.bincount(nearest)
        sums = np.stack([np.bincount(nearest, channel) for channel in points.T], axis=1)
        centres = sums / sizes[:, None]
        # |p - c|^2 without |p|^2, which is the same for all centres
        nearest = np.argmin((centres**2).sum(1) - 2 * points @ centres.T, axis=1)
    _, nearest = np.unique(nearest, return_inverse=True)
    return nearest.reshape(height, width).astype(np.int32)
