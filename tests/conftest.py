"""Which variants of a test are slow ones: they compile a program of their own, and another covers their kind.

`pytest -m slow` runs them.

Compiling is two thirds of the tests' time, and their arrays are small: the compiler is told not to optimise, unless
XLA_FLAGS says something else.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

SLOW = (
    "test_same_objective_at_every_point_and_same_optimum[one]",
    "test_same_objective_at_every_point_and_same_optimum[complex]",
    "test_the_certificate_is_never_below_the_true_gap_and_close_to_it[fourier]",
    "test_gap_holds_and_is_smaller_than_that_of_scaling_alone[dct]",
    "test_the_gap_is_never_below_the_truth[soft mask, anisotropic, active box]",
    "test_total_variation_against_closed_forms_and_recomputed_optima[False]",
    "test_derivatives_are_those_of_the_solve",
    "test_in_float32_the_rounding_of_the_inverse_does_no_harm[rows twice]",
    "test_batches[ADMM]",
    "test_recover_keeps_type_shape_and_metadata[pnp]",
    "test_jit_and_vmap[spectral]",
    "test_other_data_terms_are_certified[a ball, Fourier samples]",
    "test_the_norm_bound_of_a_dense_matrix_is_never_below[300-300]",
    "test_the_x_update_is_exact[deblurring, reflect-dct]",
    "test_exports_and_maps_over_keys[variable-density]",
    "test_wavelet_l1_of_all_pixels_is_soft_thresholding[solver0]",
    "test_batches[L1Ball, weights, complex]",
    "test_prox_and_conjugate_are_a_fenchel_pair[L1Ball, weights, complex]",
    "test_weights_of_zero_and_infinity_and_rows_twice",
    "test_vamp_takes_ill_conditioned_matrices",
    "test_with_the_denoiser_of_total_variation_its_optimum_is_reached[ADMM]",
    "test_the_optimum_is_that_of_scipy[mask, total variation-PDHG]",
    "test_implicit_derivatives_are_those_of_the_optimum[l2-ball, matrix]",
    "test_the_discrepancy_principle_elsewhere[blur-tv]",
    "test_points_of_a_path_are_separate_solves[pdhg]",
    "test_the_key_decides_what_is_held_out[wavelet]",
    "test_known_noise[tv]",
    "test_rules_of_reconstructors[spectral-sure]",
    "test_a_beam_that_hardly_touched_some_pixels_does_no_harm[wavelet]",
    "test_a_batch_is_its_items[wavelet]",
    "test_tv_is_the_solution_of_its_problem[False]",
    "test_a_scan_is_recovered[pnp]",
    "test_one_trace_for_all_numbers[wavelet]",
    "test_the_discrepancy_principle_elsewhere[fourier-wavelet]",
    "test_the_discrepancy_principle_elsewhere[blur-wavelet]",
    "test_the_discrepancy_principle_elsewhere[blur-spectral]",
    "test_the_discrepancy_principle_elsewhere[fourier-tv]",
    "test_points_of_a_path_are_separate_solves[pcg]",
    "test_a_rule_without_noise_for_a_blur",
    "test_the_pseudo_inverse_is_that_of_the_matrix[fourier]",
    "test_rules_of_reconstructors[spectral-discrepancy]",
    "test_constant_and_nearly_empty_scans[tv]",
    "test_constant_and_nearly_empty_scans[wavelet]",
    "test_grey_values_may_be_of_any_size[tv]",
    "test_grey_values_may_be_of_any_size[wavelet]",
    "test_tv_is_the_solution_of_its_problem[True]",
    "test_the_optimum_is_that_of_pdhg[deblurring, zero-preconditioned]",
    "test_the_optimum_is_that_of_pdhg[counts behind a blur-ADMM]",
    "test_other_data_terms_are_certified[a ball, wavelets]",
    "test_other_data_terms_are_certified[counts behind a blur]",
    "test_jit_and_vmap[wavelet]",
    "test_known_noise[wavelet]",
    "test_weights_of_a_batch[wavelet]",
    "test_automatic_weights_of_a_batch_do_not_meet[wavelet]",
    "test_fit_then_call_is_call[wavelet]",
    "test_masks_of_a_batch[wavelet]",
    "test_restarts_find_the_same_optimum",
    "test_one_pixel_wide[shape0]",
    "test_unrolled_gradients[PDHG]",
    "test_a_flat_scan_or_a_mix_of_one_is_even",
    "test_a_part_without_samples_does_not_decide_the_weight",
    "test_recover_keeps_type_shape_and_metadata[wavelet]",
    "test_constant_and_tiny_images_come_back[spectral-shape5]",
    "test_constant_and_tiny_images_come_back[spectral-shape6]",
    "test_jit_and_vmap[pnp]",
    "test_known_noise[pnp]",
    "test_weights_of_a_batch[pnp]",
    "test_masks_of_a_batch[pnp]",
    "test_automatic_weights_of_a_batch_do_not_meet[pnp]",
    "test_fit_then_call_is_call[pnp]",
    "test_a_batch_is_its_items[total variation]",
    "test_derivatives[eta1]",
    "test_counts_outliers_boxes_and_complex_measurements",
    "test_a_linear_denoiser_has_its_closed_form[PGD]",
    "test_a_linear_denoiser_has_its_closed_form[ADMM]",
    "test_a_scan_is_recovered[wavelet]",
    "test_the_certificate_is_never_below_the_true_gap_and_close_to_it[blocks]",
    "test_same_objective_at_every_point_and_same_optimum[blocks]",
    "test_the_optimum_is_that_of_pdhg[l1 and box-CondatVu]",
    "test_batches[FISTA]",
    "test_weights_of_a_batch[tv]",
    "test_a_beam_that_hardly_touched_some_pixels_does_no_harm[tv]",
    "test_a_louder_scan_gets_a_larger_weight[wavelet]",
)


@pytest.fixture
def on_eight_devices() -> Callable[[str], None]:
    """Runs a program in a process of eight simulated devices, which has to end well."""

    def run(program: str) -> None:
        flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
        root = str(Path(__file__).parents[1])
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.endswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Every compiled program holds some memory maps, of which a process has 65,530: past that, compiling crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        import jax

        jax.clear_caches()
        gc.collect()
