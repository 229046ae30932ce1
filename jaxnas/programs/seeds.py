"""The networks that a search over MNIST-1D begins with, as sources.

Chen et al., NeurIPS 2023, arXiv:2302.14838, seed EvoPrompting with a convolutional network with a
residual connection (91,082 parameters), the convolutional network of MNIST-1D's own repository
(5,210), a recurrent network whose GRU is made inside the call and so stays as it is (4,810) and a
multi-layer perceptron with a residual connection (15,210). These are our words for them.
"""

CONVOLUTIONS = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        x = nn.relu(nn.Conv(features=32, kernel_size=(3,))(x))
        x = x + nn.Conv(features=32, kernel_size=(3,))(x)
        x = nn.avg_pool(x, window_shape=(2,), strides=(2,))
        x = nn.relu(nn.Conv(features=32, kernel_size=(3,))(x))
        x = nn.avg_pool(x, window_shape=(2,), strides=(2,))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(features=256)(x))
        return nn.Dense(features=10)(x)
"""

STRIDED = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        x = nn.relu(nn.Conv(features=25, kernel_size=(5,), strides=(2,), padding=1)(x))
        x = nn.relu(nn.Conv(features=25, kernel_size=(3,), strides=(2,), padding=1)(x))
        x = nn.relu(nn.Conv(features=25, kernel_size=(3,), strides=(2,), padding=1)(x))
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(features=10)(x)
"""

RECURRENT = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        forward = nn.RNN(nn.GRUCell(features=6, parent=None), parent=None)
        backward = nn.RNN(nn.GRUCell(features=6, parent=None), parent=None)
        gru = nn.Bidirectional(forward, backward, parent=None)
        x = gru.apply(gru.init(jax.random.key(0), x), x)
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(features=10)(x)
"""

PERCEPTRON = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(features=100)(x))
        x = x + nn.relu(nn.Dense(features=100)(x))
        return nn.Dense(features=10)(x)
"""

_IMPORTS = "import flax.linen as nn\n\n"
MNIST1D = {
    "residual convolutions": f"{_IMPORTS}{CONVOLUTIONS}",
    "strided convolutions": f"{_IMPORTS}{STRIDED}",
    "fixed GRU": f"import jax\n{_IMPORTS}{RECURRENT}",
    "residual perceptron": f"{_IMPORTS}{PERCEPTRON}",
}
"""Name to source."""
