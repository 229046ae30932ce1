"""NASNet and AmoebaNet cells: five nodes, any of them in the output.

Zoph, Vasudevan, Shlens & Le, arXiv:1707.07012; Real, Aggarwal, Huang & Le, arXiv:1802.01548.
"""

from jaxnas.cells import cell_text
from jaxnas.cells.cell_text import Genotype

OPS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "conv_7x1_1x7",
)
NAMED = {
    "NASNet": "N[S5<1 S3<0 S5<0 S3<0 AP<1 SK<0 AP<0 AP<0 S3<1 SK<1] cat[2, 3, 4, 5, 6] "
    "R[S5<1 S7<0 MP<1 S7<0 AP<1 S5<0 SK<3 AP<2 S3<2 MP<1] cat[4, 5, 6]",
    "AmoebaNet": "N[AP<0 MP<1 S3<0 S5<2 S3<0 AP<3 S3<1 SK<1 SK<0 AP<1] cat[4, 5, 6] "
    "R[AP<0 S3<1 MP<0 S7<2 S7<0 AP<1 MP<0 MP<1 C7171<0 S3<5] cat[3, 4, 6]",
}
RULES = cell_text.Rules(OPS, nodes=5, distinct=False, named=NAMED)


def from_text(text: str) -> Genotype:
    """Reads a genotype in either notation of `cell_text`, or by its name in `NAMED`.

    Raises:
      ValueError: naming the token that is wrong, where it stands and what was expected.
    """
    return cell_text.read(text, RULES)
