# bns_proto(TARGET files...): generates C from .proto files with protobuf-c, as one static library.
find_program(PROTOC_C protoc-c REQUIRED)
function(bns_proto target)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  foreach(proto ${ARGN})
    get_filename_component(dir ${proto} DIRECTORY)
    get_filename_component(name ${proto} NAME_WE)
    add_custom_command(
      OUTPUT ${out}/${name}.pb-c.c ${out}/${name}.pb-c.h
      COMMAND ${PROTOC_C} --c_out=${out} -I${dir} ${proto}
      DEPENDS ${proto} VERBATIM)
    list(APPEND sources ${out}/${name}.pb-c.c)
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} PUBLIC ${out})
  target_link_libraries(${target} PUBLIC PkgConfig::libprotobuf_c)
endfunction()
