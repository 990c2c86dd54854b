"""Which test checks each golden array: rows of patterns of places, file:array (files that are no .npz: the file).

The first row that fits counts. `INPUTS` only feed tests; `NOT_CHECKED` says why; every other array is in `CHECKED`,
with the tests that compare with it, as module::function.
"""

from __future__ import annotations

INPUTS = (
    "assets/*",
    "toy_subject/*",
    "README.md",
    "selection.json",
    "10_motion/*",
    "11_evaluator/subjects/*",
    "11_evaluator/result/*",
    "10_checkpoint/initial_network.pth",
    "01_subdivision.npz:[fv]*_lr",
    "02_functions.npz:img_out",
    "02_functions.npz:*_tgt",
    "02_functions.npz:*_out",
    "02_functions.npz:binary",
    "02_functions.npz:cam_*",
    "02_functions.npz:patch_src",
    "02_mesh_operators.npz:verts_*",
    "02_mesh_operators.npz:faces_*",
    "02_mesh_operators.npz:[xy]_[hl]r",
    "02_mesh_operators.npz:tv_img",
    "02_mesh_operators.npz:tv_mask",
    "03_body_model.npz:in_*",
    "03_body_model.npz:id_shape_param",
    "03_body_model.npz:id_face_offset",
    "03_body_model.npz:id_joint_offset",
    "03_body_model.npz:world_in_*",
    "03_body_model.npz:world_cam_*",
    "03_body_model.npz:kpt_idx",
    "04_skinning_field.npz:args_*",
    "04_skinning_field.npz:field_b_flat_idx",
    "05_persona_state.npz:*",
    "05_persona.npz:sample_idx",
    "05_persona.npz:smplx_*",
    "05_persona.npz:cam_*",
    "05_persona.npz:mean_offset",
    "05_persona_grads.npz:random_weight",
    "05_out_of_field.npz:vertex_idx",
    "05_out_of_field.npz:added_offset",
    "06_texture_init.npz:texture",
    "06_texture_init.npz:texture_gen",
    "06_texture_init.npz:seg",
    "06_texture_init.npz:faces_lr",
    "07_rasteriser*.npz:mean_3d",
    "07_rasteriser*.npz:scale",
    "07_rasteriser*.npz:opacity",
    "07_rasteriser*.npz:rgb",
    "07_rasteriser*.npz:rotation*",
    "07_rasteriser*.npz:bg",
    "07_rasteriser*.npz:cam_*",
    "07_rasteriser*.npz:random_weight",
    "07_renders_*.npz:cam_*",
    "07_renders_*.npz:smplx_*_pose",
    "07_renders_*.npz:smplx_expr",
    "07_renders_*.npz:smplx_trans",
    "07_renders_*.npz:captured_*",
    "08_losses_*.npz:pick.*",
    "08_losses_*.npz:smplx6d.*",
    "09_smplx_param_dict.npz:in.*",
    "09_smplx_param_dict.npz:gradw.*",
    "10_fit_step.npz:before.*",
    *(
        f"12_rasterizer_cuda/*.npz:{name}"
        for name in (
            *(
                "means",
                "scales",
                "quats_wxyz",
                "opacities",
                "rgb",
                "background",
                "R",
                "t",
                "focal",
                "princpt",
            ),
            "grad_image",
        )
    ),
)

_PREPROCESSING = (
    "preprocessing makes it (boxes around keypoints, face crops); this project reads the result from files"
)
NOT_CHECKED = {
    "02_functions.npz:patch_bbox": f"{_PREPROCESSING}; the crop of this box is checked",
    "02_functions.npz:patch_bbox_in": f"{_PREPROCESSING}; what patch_bbox is made of",
    "02_functions.npz:kpt*": _PREPROCESSING,
    "03_body_model.npz:kpt_face_part_idx": "indices into the published 135 keypoints, which nothing here uses",
    "07_rasteriser.npz:grad_mean_2d": "a gradient inside the published rasterizer, on the way to grad_mean_3d",
}

_IMAGES = ("test_renders::test_splatted_images_of_the_stored_positions", "test_renders::test_splatted_images")

CHECKED: dict[str, tuple[str, ...]] = {
    "01_subdivision.npz:edges_*": ("test_subdivision::test_edges_and_faces_have_the_published_order",),
    "01_subdivision.npz:faces_*": ("test_subdivision::test_edges_and_faces_have_the_published_order",),
    "01_subdivision.npz:vertex_num_hr": ("test_subdivision::test_edges_and_faces_have_the_published_order",),
    "01_subdivision.npz:verts_*": ("test_subdivision::test_features_are_interpolated_as_published",),
    "01_subdivision.npz:feat_*": ("test_subdivision::test_features_are_interpolated_as_published",),
    "01_subdivision.npz:flag_hr": ("test_subdivision::test_flags_are_interpolated_as_published",),
    "02_mesh_operators.npz:normals_*": ("test_mesh_operators::test_vertex_normals",),
    "02_mesh_operators.npz:neighbor_*": (
        "test_mesh_operators::test_own_neighbour_lists_equal_the_stored_sets_where_nothing_is_cut",
    ),
    "02_mesh_operators.npz:degree_lr": (
        "test_mesh_operators::test_own_neighbour_lists_equal_the_stored_sets_where_nothing_is_cut",
    ),
    "02_mesh_operators.npz:lap*": ("test_mesh_operators::test_laplacian_over_the_stored_lists",),
    "02_mesh_operators.npz:tv_*": ("test_functions::test_total_variation_with_and_without_mask",),
    "02_functions.npz:ssim_map": ("test_functions::test_ssim_map",),
    "02_functions.npz:img_loss*": ("test_functions::test_image_loss_and_its_gradient",),
    "02_functions.npz:*_loss": ("test_functions::test_geometry_loss_and_its_gradients",),
    "02_functions.npz:geo_grad_*": ("test_functions::test_geometry_loss_and_its_gradients",),
    "02_functions.npz:dilate_*": ("test_functions::test_dilation",),
    "02_functions.npz:sobel": ("test_functions::test_sobel_magnitude",),
    "02_functions.npz:patch": ("test_functions::test_warp_of_a_box_agrees_with_the_published_affine_crop",),
    "02_functions.npz:patch_*trans": (
        "test_functions::test_crop_camera_agrees_with_the_published_affine_crop",
    ),
    "02_functions.npz:fov": ("test_functions::test_projection_agrees_with_the_published_field_of_view",),
    "02_functions.npz:proj_matrix": (
        "test_functions::test_projection_agrees_with_the_published_projection_matrix",
        "test_functions::test_cameras_matrices_agree_with_the_published_ones",
    ),
    # Joints beyond the 55 of out_joints are vertices and landmarks, which nothing here uses.
    "03_body_model.npz:out_v_shaped": ("test_body_model::test_shape_blending_alone",),
    "03_body_model.npz:out_*": (
        "test_body_model::test_posed_body",
        "test_body_model::test_float64_agrees_with_the_stored_float32",
    ),
    "03_body_model.npz:masked_root_*": ("test_body_model::test_root_offset_is_masked_by_default",),
    "03_body_model.npz:rest_hands_*": ("test_body_model::test_zero_pose_has_the_mean_hands",),
    "03_body_model.npz:pose_mean": ("test_body_model::test_zero_pose_has_the_mean_hands",),
    "03_body_model.npz:expr_dirs_after_flame": ("test_body_model::test_expression_directions_and_tree",),
    "03_body_model.npz:parents": ("test_body_model::test_expression_directions_and_tree",),
    "03_body_model.npz:id_joint_offset_root_masked": ("test_body_model::test_root_offset_that_is_masked",),
    "03_body_model.npz:neutral_*_pose": ("test_body_model::test_neutral_pose_itself",),
    "03_body_model.npz:neutral_*_joints": ("test_body_model::test_neutral_joints",),
    "03_body_model.npz:neutral_*": ("test_body_model::test_neutral_vertices",),
    "03_body_model.npz:zero_pose_hr": ("test_body_model::test_zero_pose_on_the_subdivided_mesh",),
    "03_body_model.npz:zero_pose_*": ("test_body_model::test_zero_pose",),
    "03_body_model.npz:world_vertices_lr": ("test_body_model::test_world_space",),
    "03_body_model.npz:world_kpt": ("test_body_model::test_joints_among_the_published_keypoints",),
    "03_names.json": ("test_body_model::test_joint_names",),
    "03_masks.npz:is_hand_hr": ("test_masks::test_hands_together",),
    "03_masks.npz:is_*": ("test_masks::test_part",),
    "03_masks.npz:*_vertex_idx": ("test_masks::test_expression_and_hand_ids",),
    "03_masks.npz:*hand_face": ("test_masks::test_hand_faces_are_those_of_mano",),
    "03_masks.npz:adj_joint_mask_4ring": ("test_masks::test_kinematic_reach",),
    "03_masks.npz:*mouth*": (
        "test_masks::test_published_closed_mouth_joins_expression_vertices_of_the_same_mesh",
        "test_renders::test_mesh_masks",
    ),
    "03_masks.npz:skinning_weight_orig_hr": ("test_masks::test_interpolated_weights_and_directions",),
    "03_masks.npz:expr_dirs_hr": ("test_masks::test_interpolated_weights_and_directions",),
    "04_skinning_field.npz:coord_*": ("test_skinning_field::test_grid_coordinates",),
    "04_skinning_field.npz:field_b_sample": ("test_skinning_field::test_field_after_few_iterations",),
    "04_skinning_field.npz:field_*": ("test_skinning_field::test_whole_field",),
    "04_skinning_field.npz:fixed_cells_a": ("test_skinning_field::test_fixed_cells_are_those_near_a_vertex",),
    "04_skinning_field.npz:*": ("test_skinning_field::test_vertices_and_weights_are_the_neutral_body",),
    "05_persona.npz:is_*": ("test_avatar::test_parts_of_the_gaussians",),
    "05_persona.npz:pos_enc_vert": ("test_avatar::test_identity_constants",),
    "05_persona.npz:vert_neutral_pose": ("test_avatar::test_identity_constants",),
    "05_persona.npz:joint_zero_pose": ("test_avatar::test_identity_constants",),
    "05_persona.npz:skinning_weight*": (
        "test_avatar::test_skinning_weights_of_base_and_refined",
        "test_skinning_field::test_base_weights",
    ),
    "05_persona.npz:joint_idx_argmax": ("test_avatar::test_skinning_weights_of_base_and_refined",),
    "05_persona.npz:tri_feat_sample": ("test_avatar::test_triplane_features",),
    "05_persona.npz:mean_offset_offset": ("test_avatar::test_pose_offset",),
    "05_persona.npz:transform_mat_joint": ("test_avatar::test_joint_transforms",),
    "05_persona.npz:rotation": ("test_avatar::test_gaussians_are_isotropic_and_opaque",),
    "05_persona.npz:opacity": ("test_avatar::test_gaussians_are_isotropic_and_opaque",),
    **{
        f"05_persona.npz:{name}": ("test_avatar::test_posed_means_and_appearance",)
        for name in ("mean_3d", "mean_3d_refined", "vert", "scale", "rgb")
    },
    "05_persona_grads.npz:*": ("test_avatar::test_gradients",),
    "05_no_gradient.json": ("test_avatar::test_parameters_without_gradient",),
    # Deliberately different (SPEC 18): what the published system does there is checked for consistency only.
    "05_out_of_field.npz:*": (
        "test_avatar::test_gaussian_outside_the_field_stays_with_the_body",
        "test_skinning_field::test_gaussians_far_outside_keep_weights",
    ),
    "06_texture_init.npz:*_logit": ("test_texture::test_colors_from_the_body_files",),
    "06_texture_init.npz:scale_log": ("test_texture::test_scales",),
    "06_texture_init.npz:*uv": ("test_masks::test_uv",),
    "06_texture_init.npz:scale_points": (
        "test_texture::test_scale_points_are_the_neutral_body_with_open_jaw",
    ),
    "06_texture_init.npz:pos_enc_vert": (
        "test_texture::test_scale_points_are_the_neutral_body_with_open_jaw",
    ),
    "06_texture_init.npz:mean_offset": ("test_texture::test_offsets_begin_at_zero",),
    "07_rasteriser*.npz:radius": ("test_rasterizer::test_radii_equal_the_published_ones",),
    **{
        f"07_rasteriser*.npz:{name}": ("test_rasterizer::test_settings_of_the_published_rasterizer",)
        for name in ("kernel_size", "shape_hw", "view_matrix", "proj_matrix")
    },
    "07_rasteriser_stress.npz:grad_exact_*": (
        "test_rasterizer::test_exact_gradients_of_the_reference_equal_autograd_of_the_published_forward",
    ),
    "07_rasteriser*.npz:grad_*": (
        "test_rasterizer::test_image_and_gradients_equal_the_published_rasterizer",
    ),
    "07_rasteriser*.npz:img": ("test_rasterizer::test_image_and_gradients_equal_the_published_rasterizer",),
    **{
        f"07_rasteriser_stress.npz:{name}": ("test_rasterizer::test_footprints_equal_the_published_ones",)
        for name in ("means_2d_pixel", "conic", "opacity_times_coef", "depth", "tile_rect_*", "visible")
    },
    "07_renders_*.npz:asset_*mean_3d": ("test_renders::test_posed_geometry",),
    "07_renders_*.npz:vert_hr_world": ("test_renders::test_posed_geometry",),
    "07_renders_*.npz:asset_*": ("test_renders::test_scales_and_colours",),
    "07_renders_*.npz:*smplx_vert*": ("test_renders::test_posed_body",),
    "07_renders_*.npz:pos_enc_for_boundary": ("test_renders::test_positions_behind_the_boundary_maps",),
    "07_renders_*.npz:radius": ("test_renders::test_radii",),
    "07_renders_*.npz:*_matrix": ("test_renders::test_camera_matrices",),
    "07_renders_*.npz:*fov": ("test_renders::test_camera_matrices",),
    # Quirk 1: that of hands is checked as published, with world coordinates taken as camera coordinates.
    "07_renders_*.npz:*_mesh_mask*": (
        "test_renders::test_mesh_masks_of_the_stored_vertices",
        "test_renders::test_mesh_masks",
    ),
    "07_renders_*.npz:testmode_*_refined": ("test_renders::test_refined_image_and_mask_of_testing",),
    "07_renders_*.npz:testmode_mask": ("test_renders::test_thresholded_masks_of_testing",),
    "07_renders_*.npz:boundary_posenc_render": _IMAGES,
    "07_renders_*.npz:*gradient_magnitude": _IMAGES,
    "07_renders_*.npz:*boundary*": ("test_renders::test_boundary_maps",),
    "07_renders_*.npz:*kernel_size*": ("test_renders::test_boundary_maps",),
    **{
        f"07_renders_*.npz:{name}": _IMAGES
        for name in (
            *(
                "img_*",
                "mask*",
                "depth*",
                "normal*",
                "seg",
                "hand_*",
                "*face_mask",
                "*eye_mask",
                "face_img_init",
            ),
            *("patch_face_img*", "patch_geo_detach", "patch_depth", "testmode_*"),
        )
    },
    "08_losses_*.json": (
        "test_losses::test_terms_and_their_values",
        "test_losses::test_total_gradient_norms",
        "test_losses::test_every_term_reaches_the_stored_parameters",
    ),
    "08_losses_captured.npz:term.*": (
        "test_losses::test_values_and_gradients_at_the_stored_positions",
        "test_losses::test_gradient_of_every_term",
    ),
    "08_losses_*.npz:term.*": ("test_losses::test_gradient_of_every_term",),
    "08_losses_*.npz:total.*": ("test_losses::test_total_gradient_entries",),
    "08_losses_*.npz:data.*": ("test_losses::test_frames_are_the_stored_ones",),
    "09_schedule.json": (
        "test_dataset::test_frame_lists_are_the_published_ones",
        "test_dataset::test_frames_in_the_order_of_the_published_glob_are_the_same_frames",
        "test_pose_table::test_keys_shapes_and_groups_are_the_published_ones",
        "test_snapshot::test_learning_rates",
        "test_snapshot::test_parameter_groups_and_adam",
        "test_snapshot::test_parameter_groups_of_pose_fitting",
    ),
    "09_smplx_param_dict.npz:stored.*": ("test_pose_table::test_stored_values_are_the_published_6d",),
    "09_smplx_param_dict.npz:out.*": (
        "test_pose_table::test_axis_angle_comes_back_as_published_up_to_the_sign_of_half_turns",
    ),
    "09_smplx_param_dict.npz:grad.*": (
        "test_pose_table::test_gradient_through_the_round_trip_is_the_published_one",
    ),
    "09_dataset_items.npz:*.*": ("test_dataset::test_loaded_frame_is_the_published_one",),
    "09_dataset_items.npz:*": ("test_dataset::test_identity_and_merged_textures_are_the_published_ones",),
    "10_checkpoint/after_step1_network.pth": ("test_training_steps::test_parameters_after_each_step",),
    "10_checkpoint/snapshot_0.pth": (
        "test_checkpoint::test_published_snapshot_has_the_listed_keys_and_shapes",
        "test_snapshot::test_motion_frames",
        "test_training_steps::test_parameters_after_each_step",
    ),
    "10_checkpoint/manifest.json": (
        "test_checkpoint::test_snapshot_loaded_and_saved_is_as_the_manifest_lists_it",
        "test_training_steps::test_losses_of_each_step",
        "test_training_steps::test_gradient_norms_of_each_step",
    ),
    "10_fit_step.npz:start_epoch": ("test_snapshot::test_fitting_goes_on_after_the_snapshots_epoch",),
    "10_fit_step.npz:*": ("test_snapshot::test_first_fitting_step",),
    "10_motion_renders*.npz:video_frames_bgr_uint8": (
        "test_snapshot::test_photo_panel_of_the_video",
        "test_snapshot::test_frames_on_a_background",
    ),
    "10_motion_renders*.npz:video_size_wh": ("test_snapshot::test_size_and_rate_of_the_video",),
    "10_motion_renders*.npz:fps": ("test_snapshot::test_size_and_rate_of_the_video",),
    "10_motion_renders.npz:loaded_*": ("test_snapshot::test_identity_of_the_snapshot",),
    "10_motion_renders.npz:refined_uint8_rgb": (
        "test_snapshot::test_8_bit_frames_and_the_masks_behind_those_on_a_background",
    ),
    "10_motion_renders_bkg.npz:*": (
        "test_snapshot::test_8_bit_frames_and_the_masks_behind_those_on_a_background",
    ),
    "10_motion_renders.npz:*": ("test_snapshot::test_motion_frames",),
    "11_evaluator/expected.json": (
        "test_evaluator::test_figures_of_each_frame",
        "test_evaluator::test_means",
        "test_evaluator::test_figures_in_the_order_of_each_script",
        "test_evaluator::test_frames_are_pasted_into_the_published_boxes",
    ),
    "12_rasterizer_cuda/*.npz:radii": ("test_rasterizer::test_radii_equal_the_published_ones",),
    "12_rasterizer_cuda/*.npz:image": (
        "test_rasterizer::test_image_and_gradients_equal_the_published_rasterizer",
    ),
    "12_rasterizer_cuda/*.npz:grad_*": (
        "test_rasterizer::test_image_and_gradients_equal_the_published_rasterizer",
    ),
    "12_rasterizer_cuda/*.npz:kernel_size": ("test_rasterizer::test_settings_of_the_published_rasterizer",),
    "12_rasterizer_cuda/*.npz:image_size": ("test_rasterizer::test_settings_of_the_published_rasterizer",),
}
