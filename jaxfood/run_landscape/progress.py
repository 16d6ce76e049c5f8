"""A progress bar over Hessian-vector products, and how long those still to come will take."""

from tqdm.auto import tqdm

from jaxfood.landscape import Point
from jaxfood.run_landscape.measure import measure_seconds


class ProductBar(tqdm):
    """Its `update` is a `Point`'s `on_product`; gone once it ends."""

    def __init__(self) -> None:
        super().__init__(desc="Hessian-vector products", unit="product", leave=False, delay=1)

    def expect(self, point: Point, products: int, losses: int = 0) -> None:
        """Time a product and a loss, and say what so many will take."""
        product, loss = measure_seconds(point)
        self.total = point.products + products
        tqdm.write(
            f"{point.size:,} parameters; a Hessian-vector product takes {product:.2g} s, a loss {loss:.2g} s: about "
            f"{products} and {losses} of them, {(products * product + losses * loss) / 60:.2g} minutes"
        )
