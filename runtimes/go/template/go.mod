module app

go 1.23

require rnnx v0.0.0

require github.com/yalue/onnxruntime_go v1.32.0 // indirect

replace rnnx => ./rnnx
