"""Denoisers `eta(v, sigma) -> x`: for plug-and-play, message passing, or a picture on its own."""

from emjax.denoisers.base import Denoiser
from emjax.denoisers.network import NetworkDenoiser
from emjax.denoisers.non_local_means import NonLocalMeans
from emjax.denoisers.total_variation import TVDenoiser
from emjax.denoisers.wavelets import WaveletDenoiser

__all__ = ["Denoiser", "NetworkDenoiser", "NonLocalMeans", "TVDenoiser", "WaveletDenoiser"]
