module example.com/timezone

go 1.21
